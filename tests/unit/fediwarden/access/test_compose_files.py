"""What compose/ says of Kafka's doors and of three brokers, held against compose.yaml and the roles."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fediwarden.access.roles import ROLES, rights_of
from fediwarden.settings import Settings
from schemas.topics import RESCAN_JOBS

COMPOSE = Path(__file__).parents[4] / "compose"
THREE, HOME, LISTENER = "compose.kafka3.yaml", "compose.home-scanner.yaml", "compose.home-listener.yaml"
OF_A_NODE = {"KAFKA_NODE_ID", "KAFKA_ADVERTISED_LISTENERS"}
OF_THREE = {
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@kafka:9093,2@kafka-2:9093,3@kafka-3:9093",
    "KAFKA_LISTENERS": "PLAINTEXT://0.0.0.0:9092,CONTROLLER://0.0.0.0:9093",
    "KAFKA_DEFAULT_REPLICATION_FACTOR": 3,
    "KAFKA_MIN_INSYNC_REPLICAS": 2,
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": 3,
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": 3,
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": 2,
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": 3,
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": 2,
    "KAFKA_METADATA_MAX_IDLE_INTERVAL_MS": 500,  # as fediwarden/kafka/node.py where there are several
}


def services(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((COMPOSE / name).read_text())["services"])


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    if not (COMPOSE / "compose.yaml").exists():
        pytest.skip("compose/compose.yaml is not there")
    return services("compose.yaml")


@pytest.mark.parametrize("number", [2, 3])
def test_the_other_brokers_are_as_the_first(base: dict[str, Any], number: int) -> None:
    first, other = base["kafka"], services(THREE)[f"kafka-{number}"]
    first_set, other_set = first["environment"] | services(THREE)["kafka"]["environment"], other["environment"]
    assert {name: value for name, value in other_set.items() if name not in OF_A_NODE} == {
        name: value for name, value in first_set.items() if name not in OF_A_NODE
    }
    assert other_set["KAFKA_NODE_ID"] == number
    assert other_set["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://kafka-{number}:9092"
    assert other["volumes"][0] == f"kafka-{number}:/var/lib/kafka/data"
    rest = first.keys() - {"environment", "volumes"}
    assert {name: other[name] for name in rest} == {name: first[name] for name in rest}


def test_three_brokers_differ_from_one_in_what_three_are_for_and_in_nothing_else() -> None:
    assert services(THREE)["kafka"]["environment"] == OF_THREE


def test_everything_knows_all_three_and_topics_are_made_when_all_three_are_there(base: dict[str, Any]) -> None:
    changed = services(THREE)
    ours = {name for name, service in base.items() if "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS" in service["environment"]}
    assert ours == changed.keys() - {"kafka", "kafka-2", "kafka-3"}
    for name in ours:
        assert changed[name]["environment"] == {
            "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092,kafka-2:9092,kafka-3:9092"
        }
    assert changed["prepare"]["depends_on"].keys() == {"kafka-2", "kafka-3"}
    assert changed["kafka"]["volumes"] == ["kafka-1:/var/lib/kafka/data"], "never the volume of a single Kafka"


def test_only_the_door_with_a_lock_is_published() -> None:
    kafka, networks = services(LISTENER)["kafka"], yaml.safe_load((COMPOSE / LISTENER).read_text())["networks"]
    listeners = dict(each.split("://") for each in kafka["environment"]["KAFKA_LISTENERS"].split(","))
    assert [each.rpartition(":")[2] for each in kafka["ports"]] == [listeners["HOME"].rpartition(":")[2]]
    assert listeners["CONTROLLER"].startswith("127.0.0.1:")
    assert networks.keys() == set(kafka["networks"]) - {"inside"}, "one of its own, where nobody else is"
    protocols = kafka["environment"]["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
    assert "HOME:SASL_SSL" in protocols
    assert not any(name.endswith("SSL") for name in listeners), "the image's start script would ask for keystores"


def test_a_scanner_at_home_is_set_as_its_role_allows() -> None:
    scanner = services(HOME)["scanner"]
    assert scanner["environment"]["FEDIWARDEN_KAFKA__SECURITY_PROTOCOL"] == "SASL_SSL"
    assert scanner["environment"]["FEDIWARDEN_SCANNER__RESCANS"] == "false"
    assert not any(RESCAN_JOBS.name in right.name for right in rights_of(ROLES["home-scanner"], Settings()))
    assert "ports" not in scanner


@pytest.mark.parametrize(
    ("file", "name"), [(HOME, "scanner"), (HOME, "prepare"), (THREE, "kafka-2"), (THREE, "kafka-3")]
)
def test_what_is_new_is_shut_in(file: str, name: str) -> None:
    service = services(file)[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].partition(":")[0] in ("1000", "10001")
    assert service["mem_limit"]
