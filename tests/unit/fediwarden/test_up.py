"""What `up` runs, and what it tells its scanners."""

import asyncio
import socket
from pathlib import Path

import pytest

from fediwarden.kafka.errors import PortTaken
from fediwarden.settings import Settings, environment_of
from fediwarden.up import _await_pages, _ports, _services, check_ports, describe, settings_of_scanner
from scanner.settings import ScannerSettings

VARIABLE = "FEDIWARDEN_SCANNER__INSTANCE"


def test_every_scanner_of_every_up_has_a_name_of_its_own_that_stays_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr("socket.gethostname", lambda: "häuschen (1)")

    def name(place: Path, scanner: str) -> str:
        return environment_of(settings_of_scanner(Settings(data_dir=place), scanner, 0))[VARIABLE]

    names = [name(tmp_path / place, scanner) for place in ("a", "b") for scanner in ("scanner-1", "scanner-2")]
    assert len(set(names)) == 4
    assert all(ScannerSettings(instance=each).instance == each for each in names)
    assert name(tmp_path / "a", "scanner-1") == names[0]


def test_a_name_from_the_settings_is_told_apart_for_each_scanner(tmp_path):
    settings = Settings(data_dir=tmp_path, scanner=ScannerSettings(instance="attic"))
    assert environment_of(settings_of_scanner(settings, "scanner-2", 1))[VARIABLE] == "attic-scanner-2"


def test_scanners_take_the_devices_in_turn(tmp_path):
    def devices(**settings: object) -> list[str | None]:
        given = Settings(data_dir=tmp_path, **settings)
        environments = [environment_of(settings_of_scanner(given, f"scanner-{n}", n)) for n in range(3)]
        return [environment.get("FEDIWARDEN_SCANNER__DEVICE") for environment in environments]

    assert devices(scanner_devices=("cuda:0", "cuda:1")) == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices(scanner=ScannerSettings(device="cuda")) == ["cuda", "cuda", "cuda"]
    assert devices() == [None, None, None]


def names(settings: Settings, scanners: int = 1) -> list[str]:
    return [each.name for each in _services(settings, scanners)]


def test_the_audit_runs_beside_the_rest_and_relay_and_lemmy_where_they_are_set_up(tmp_path):
    bare = Settings(data_dir=tmp_path)
    assert names(bare, 2) == ["recorder", "enforcer", "scanner-1", "scanner-2", "gateway", "audit"]
    tenant = {"pict_rs": "http://127.0.0.1:8080", "lemmy_database": "postgresql://warden@127.0.0.1/lemmy"}
    every = Settings(data_dir=tmp_path, tenants={"a": tenant}, up={"relay": True})
    assert names(every) == ["recorder", "enforcer", "scanner", "lemmy", "gateway", "audit", "relay"]
    none = Settings(data_dir=tmp_path, tenants={"a": tenant}, up={"audit": False, "lemmy": False})
    assert names(none) == ["enforcer", "scanner", "gateway"]

    aside = {each.name for each in _services(every, 1) if not each.essential}
    assert aside == {"recorder", "audit", "lemmy"} == {each.name for each in _services(every, 1) if each.niceness}
    assert [port for _, port, _, _ in _ports(every, 1)] == [14051, 14052, 14054, 14053]
    assert [port for _, port, _, _ in _ports(none, 1)] == [14051]


def test_rescans_by_themselves_run_where_they_are_asked_for(tmp_path):
    settings = Settings(data_dir=tmp_path, up={"audit": False}, rescan={"automatic": ["policy"]})
    assert names(settings) == ["enforcer", "scanner", "gateway", "rescans"]
    watch = next(each for each in _services(settings, 1) if each.name == "rescans")
    assert not watch.essential
    assert environment_of(settings)["FEDIWARDEN_RESCAN__AUTOMATIC"] == '["policy"]'


def test_what_up_prints_names_the_pages_and_how_to_make_the_first_account(tmp_path):
    settings = Settings(data_dir=tmp_path)
    told = "\n".join(describe(settings, 1, wants_first_account=True))
    assert "audit     http://127.0.0.1:14052" in told
    assert "make the first account: fediwarden users add NAME --role admin" in told
    assert "first account" not in "\n".join(describe(settings, 1))
    public = Settings(data_dir=tmp_path, audit={"pages": {"public_url": "https://audit.example"}})
    assert "audit     https://audit.example" in "\n".join(describe(public, 1))
    off = Settings(data_dir=tmp_path, up={"audit": False})
    assert not any(line.startswith("  audit") for line in describe(off, 1))


def test_up_waits_for_the_pages_a_while_and_says_when_they_do_not_answer(monkeypatch, tmp_path):
    monkeypatch.setattr("fediwarden.up._PAGES_PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as pages:
        settings = Settings(data_dir=tmp_path, audit={"pages": {"port": pages.getsockname()[1]}})
        assert asyncio.run(_await_pages(settings))
    assert not asyncio.run(_await_pages(settings))
    assert "does not answer yet" in "\n".join(describe(settings, 1, pages_answer=False))
    assert not asyncio.run(_await_pages(Settings(data_dir=tmp_path, up={"audit": False})))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"gateway": {"port": 14052}, "audit": {"pages": {"port": 14052}}},
            "the gateway and for the audit's pages",
        ),
        ({"gateway": {"port": 19192, "host": "0.0.0.0"}, "kafka": {"port": 19192}}, "Kafka and for the gateway"),
    ],
)
def test_a_port_that_is_named_twice_is_refused_before_anything_starts(tmp_path, settings, said):
    with pytest.raises(PortTaken, match=f"named twice, for {said}"):
        check_ports(Settings(data_dir=tmp_path, **settings), 1)
