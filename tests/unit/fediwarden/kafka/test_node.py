"""What a node is told: its server.properties and its command line."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from fediwarden.kafka.cluster import Cluster
from fediwarden.kafka.settings import KafkaSettings
from schemas.topics import TOPICS


def cluster(directory: Path, nodes: int = 1, **options: object) -> Cluster:
    return Cluster(directory, port=15000, classpath=[Path("/jars/a.jar")], nodes=nodes, java=Path("/java"), **options)  # type: ignore[arg-type]


def test_one_node_is_its_own_cluster_on_loopback(tmp_path):
    (node,) = cluster(tmp_path).nodes.values()
    told = node.properties()
    assert told["listeners"] == "PLAINTEXT://127.0.0.1:15000,CONTROLLER://127.0.0.1:15001"
    assert told["controller.quorum.voters"] == "1@127.0.0.1:15001"
    assert told["offsets.topic.replication.factor"] == "1"
    assert told["min.insync.replicas"] == "1"


def test_three_nodes_know_each_other_and_keep_three_copies(tmp_path):
    made = cluster(tmp_path, nodes=3)
    assert made.bootstrap_servers == "127.0.0.1:15000,127.0.0.1:15002,127.0.0.1:15004"
    voters = "1@127.0.0.1:15001,2@127.0.0.1:15003,3@127.0.0.1:15005"
    for node_id, node in made.nodes.items():
        told = node.properties()
        assert told["node.id"] == str(node_id)
        assert told["controller.quorum.voters"] == voters
        assert told["default.replication.factor"] == told["offsets.topic.replication.factor"] == "3"
        assert told["min.insync.replicas"] == "2"


def test_two_nodes_are_no_cluster(tmp_path):
    with pytest.raises(ValueError, match="nodes is 2"):
        cluster(tmp_path, nodes=2)


def test_the_largest_record_of_every_topic_passes(tmp_path):
    told = cluster(tmp_path).nodes[1].properties()
    largest = max(spec.max_message_bytes for spec in TOPICS)
    for limit in ("message.max.bytes", "replica.fetch.max.bytes", "socket.request.max.bytes"):
        assert int(told[limit]) > largest
    assert int(told["queued.max.request.bytes"]) >= int(told["socket.request.max.bytes"])


def test_the_cluster_keeps_its_id(tmp_path):
    first = cluster(tmp_path).nodes[1].cluster_id
    assert cluster(tmp_path).nodes[1].cluster_id == first
    assert len(first) == 22
    assert cluster(tmp_path / "other").nodes[1].cluster_id != first


def test_heap_options_and_jars_are_on_the_command_line_and_the_users_options_last(tmp_path):
    (spec,) = cluster(tmp_path, heap_mb=300, java_options=["-XX:TieredStopAtLevel=1"]).specs()
    assert spec.argv[0] == "/java"
    assert "-Xmx300m" in spec.argv
    assert "-XX:TieredStopAtLevel=1" in spec.argv[: spec.argv.index("-cp")]
    assert spec.argv[spec.argv.index("-cp") + 1] == "/jars/a.jar"
    assert spec.argv[-2:] == ("kafka.Kafka", str(tmp_path / "node-1" / "server.properties"))


def test_why_a_node_ended_is_read_from_the_end_of_its_logs(tmp_path):
    (node,) = cluster(tmp_path).nodes.values()
    assert node.last_words() == ""
    node.write_files()
    node.log_file.write_text(
        "2026-11-23T1 INFO all is well\n2026-11-23T2 ERROR stopping\nIOException: no disk\n\tat Some.java\n"
        "2026-11-23T3 INFO leaving\n\tat Other.java\nnot an error\n"
    )
    node.console_file.write_text("WARNING: old method\nKilled\n")
    assert node.last_words() == "2026-11-23T2 ERROR stopping\nIOException: no disk\nKilled"


def test_without_servers_of_ones_own_clients_are_sent_to_the_embedded_kafka():
    embedded = KafkaSettings(port=15000, topic_prefix="mine.")
    assert embedded.embedded
    assert embedded.broker_settings().bootstrap_servers == "127.0.0.1:15000"
    assert embedded.broker_settings().topic_prefix == "mine."


def test_a_cluster_of_ones_own_is_reached_as_it_asks():
    own = KafkaSettings(
        bootstrap_servers="kafka.example:9093",
        security_protocol="SASL_SSL",
        sasl_username="warden",
        sasl_password="secret",  # type: ignore[arg-type]
    )
    assert not own.embedded
    reached = own.broker_settings()
    assert (reached.bootstrap_servers, reached.security_protocol) == ("kafka.example:9093", "SASL_SSL")
    assert reached.sasl_password is not None and reached.sasl_password.get_secret_value() == "secret"


def test_security_without_servers_of_ones_own_is_refused():
    with pytest.raises(ValidationError, match="bootstrap_servers"):
        KafkaSettings(security_protocol="SSL")


def test_kafka_home_is_taken_from_where_kafka_itself_takes_it(monkeypatch):
    monkeypatch.setenv("KAFKA_HOME", "/opt/kafka")
    assert KafkaSettings().home == Path("/opt/kafka")
    monkeypatch.delenv("KAFKA_HOME")
    assert KafkaSettings().home is None
