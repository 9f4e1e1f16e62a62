"""Which port stands before which pict-rs."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.listening import CannotStart
from gateway.relay.service import Relay
from gateway.relay.settings import RelaySettings
from gateway.settings import TenantSettings
from schemas.pseudonyms import Pseudonyms
from tests.relays import NO_KAFKA

ONE = "http://127.0.0.1:8080"
OTHER = "http://127.0.0.1:8081"


def relay(tmp_path: Path, tenants: dict[str, dict[str, Any]], **settings: Any) -> Relay:
    given = {name: TenantSettings(key=f"key-of-{name}", **each) for name, each in tenants.items()}
    return Relay(RelaySettings(**settings), given, NO_KAFKA, Pseudonyms.open(tmp_path / "actors.json"))


@pytest.mark.parametrize(
    ("tenants", "settings", "message"),
    [
        ({"one": {}}, {}, r"set tenants\.NAME\.pict_rs"),
        ({"one": {"pict_rs": ONE}, "two": {"pict_rs": OTHER}}, {}, r"set tenants\.one\.relay_port"),
        (
            {"one": {"pict_rs": ONE, "relay_port": 7001}, "two": {"pict_rs": OTHER, "relay_port": 7001}},
            {},
            r"tenants\.two: port 7001 is taken",
        ),
        ({"one": {"pict_rs": ONE}}, {"port": 14054}, r"port 14054 is taken"),
        ({"one": {"pict_rs": "http://localhost:14053"}}, {}, r"tenants\.one\.pict_rs is the relay itself"),
    ],
)
def test_ports_that_cannot_be_are_named(
    tmp_path: Path, tenants: dict[str, dict[str, Any]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(CannotStart, match=message):
        relay(tmp_path, tenants, **settings)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    first = relay(tmp_path, {"one": {"pict_rs": ONE}}, port=0, health_port=0)
    first.start()
    second = relay(tmp_path, {"one": {"pict_rs": ONE}}, port=first.ports["one"], health_port=0)
    with pytest.raises(CannotStart, match=r"relay\.port"):
        second.start()
    third = relay(tmp_path, {"one": {"pict_rs": ONE, "relay_port": 0}}, health_port=first.health_port)
    with pytest.raises(CannotStart, match=r"relay\.health_port"):
        third.start()
    first.close()


def test_a_tenants_domain_is_kept_in_the_one_form() -> None:
    assert TenantSettings(domain="Bücher.Example:443").domain == "xn--bcher-kva.example"
    with pytest.raises(ValidationError, match="names no host"):
        TenantSettings(domain="https://lemmy.example/")
