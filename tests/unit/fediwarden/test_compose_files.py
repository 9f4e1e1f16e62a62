"""compose/*.yaml, read: what hardens a container is there, and every name in them means something."""

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from fediwarden.environment_file import GATEWAY_ADDRESS, GATEWAY_AT, IMAGES_ON, SUBNET, make, read
from fediwarden.kafka.node import Node
from fediwarden.reference.settings import variable_of
from fediwarden.settings import PREFIX, declared_settings

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "compose"
FILES = sorted(COMPOSE.glob("compose*.yaml"))
BASE = COMPOSE / "compose.yaml"
OVERRIDE = COMPOSE / "override.pict-rs.yaml"

_INTERPOLATED = re.compile(r"\$\{(?P<name>[A-Z0-9_]+)")
_PINNED = re.compile(r".+(:[^:/]*\d[^:/]*|@sha256:[0-9a-f]{64})")


def _load(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def _services(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from _load(path).get("services", {}).items()


def _new_services() -> Iterator[Any]:
    """Every service where it is declared first; in other files it is only changed."""
    ours = {name for name, _ in _services(BASE)}
    for path in FILES:
        for name, service in _services(path):
            if path == BASE or name not in ours:
                yield pytest.param(service, id=f"{path.name}-{name}")


def _environment(service: dict[str, Any]) -> dict[str, str]:
    given = service.get("environment", {})
    return dict(each.split("=", 1) for each in given) if isinstance(given, list) else given


@pytest.mark.parametrize("service", list(_new_services()))
def test_a_service_is_shut_in(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service.get("privileged") is None
    assert "no-new-privileges:true" in service["security_opt"]
    assert str(service["user"]).partition(":")[0] not in ("0", "root")
    assert service["mem_limit"]
    assert service["restart"]
    assert service["networks"]
    assert any(str(each).startswith("/tmp") for each in service["tmpfs"])
    runs_once = service["restart"] == "no"
    assert runs_once or service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_image_is_one_version(path: Path) -> None:
    for name, service in _services(path):
        if "image" in service:
            assert _PINNED.fullmatch(service["image"]), f"{name}: {service['image']}"
            assert not service["image"].endswith(":latest")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_variable_is_a_setting(path: Path) -> None:
    known = {variable_of(name).replace("<name>", "DEFAULT") for name, _ in declared_settings()}
    for name, service in _services(path):
        for variable in _environment(service):
            if variable.startswith(PREFIX):
                assert variable in known, f"{path.name}, {name}: {variable}"


def test_what_is_filled_in_is_written_by_init_or_has_a_default_or_is_asked_for(tmp_path: Path) -> None:
    make(tmp_path)
    written = read(tmp_path)
    for path in FILES:
        text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        for found in re.finditer(r"\$\{([A-Z0-9_]+)(:?[-?])?", text):
            name, otherwise = found[1], found[2] or ""
            asked_for = path != BASE and otherwise.endswith("?")  # what else an admin has to say: compose names it
            assert name in written or asked_for or otherwise.endswith("-"), f"{path.name}: {name}"
    assert set(written) - {"COMPOSE_PROJECT_NAME", "COMPOSE_FILE", "COMPOSE_PROFILES"} <= set(
        _INTERPOLATED.findall(BASE.read_text())
    ), "something is written that nobody reads"


def test_only_the_pages_are_published_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in _services(BASE) if "ports" in service}
    assert published == {"audit": ["127.0.0.1:14052:14052"]}


def test_who_meets_whom() -> None:
    networks = {name: set(service["networks"]) for name, service in _services(BASE)}
    assert {name for name, each in networks.items() if "images" in each} == {"gateway", "relay", "enforcer"}
    assert {name for name, each in networks.items() if "outside" in each} == {"prepare", "audit"}
    assert networks["kafka"] == {"inside"}
    declared = _load(BASE)["networks"]
    assert {name for name, each in declared.items() if not each.get("internal")} == {"outside"}


def test_pict_rs_joins_the_network_that_there_is() -> None:
    override, base = _load(OVERRIDE), _load(BASE)
    joined = set(override["services"]["pictrs"]["networks"]) - {"default"}
    assert joined == {base["networks"]["images"]["name"]}
    assert set(override["networks"]) == joined
    (line,) = [each for each in override["services"]["pictrs"]["environment"] if "VALIDATION=" in each]
    # By its address: pict-rs 0.5.21 and later connect to no name whose address is private.
    assert f"http://{GATEWAY_AT}:14051/api/v1/scan/" in line
    gateway, network = base["services"]["gateway"]["networks"]["images"], base["networks"]["images"]
    assert gateway["ipv4_address"] == f"${{{GATEWAY_ADDRESS}:-{GATEWAY_AT}}}"
    assert network["ipam"]["config"] == [{"subnet": f"${{{SUBNET}:-{IMAGES_ON}}}"}]
    assert ip_address(GATEWAY_AT) in ip_network(IMAGES_ON)


def test_kafka_is_set_as_the_embedded_one(tmp_path: Path) -> None:
    embedded = Node(1, tmp_path, 9092, {1: 9093}, "id", 512).properties()
    given = {
        # As apache/kafka reads them: ___ is a dash, __ an underscore, _ a dot.
        name.removeprefix("KAFKA_")
        .lower()
        .replace("___", "-")
        .replace("__", "%")
        .replace("_", ".")
        .replace("%", "_"): str(value)
        for name, value in _environment(dict(_services(BASE))["kafka"]).items()
        if name.startswith("KAFKA_")
    }
    of_the_place = {"listeners", "advertised.listeners", "log.dirs"}
    for name, value in embedded.items():
        if name not in of_the_place:
            assert given.get(name) == value, name
    of_java = {"heap.opts", "jvm.performance.opts", "log4j.opts"}
    assert set(given) - set(embedded) - of_java == set()
