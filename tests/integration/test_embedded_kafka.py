"""The embedded Kafka: real nodes, started, killed, restarted, side by side."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from fediwarden.children import Backoff, Supervisor
from fediwarden.kafka.cluster import PORTS_PER_NODE, Cluster
from fediwarden.kafka.errors import DiskFull, JarRefused, NodeFailed, PortTaken
from fediwarden.kafka.jars import KAFKA_VERSION, prepare_jars
from fediwarden.kafka.probe import list_serving_nodes
from schemas.broker import BrokerSettings, Producer, Received, Tail, apply_topics
from schemas.messages import Message, Verdict
from schemas.topics import VERDICTS
from tests.kafka import cache_dir, find_free_ports, make_cluster
from tests.unit.schemas.samples import verdict

pytestmark = pytest.mark.kafka


def settings_of(cluster: Cluster) -> BrokerSettings:
    return BrokerSettings(bootstrap_servers=cluster.bootstrap_servers)


def publish(cluster: Cluster, numbers: range) -> None:
    async def scenario() -> None:
        producer = Producer(settings_of(cluster), client_id="test")
        await producer.start()
        for number in numbers:
            message: Message = verdict(scan_id=f"scan-{number}")
            await producer.publish(VERDICTS, message, key=str(number).encode(), give_up_after=60)
        await producer.stop()

    asyncio.run(scenario())


def read_all(cluster: Cluster) -> set[str]:
    seen = set()

    def note(received: Received) -> None:
        assert isinstance(received.message, Verdict)
        seen.add(received.message.scan_id)

    async def scenario() -> None:
        tail = Tail(settings_of(cluster), [VERDICTS], since_s=3600, on_record=note, client_id="test")
        await tail.start()
        async with asyncio.timeout(60):
            await tail.wait_positioned()
        await tail.stop()

    asyncio.run(scenario())
    return seen


def scans(numbers: range) -> set[str]:
    return {f"scan-{number}" for number in numbers}


def test_data_and_cluster_survive_a_clean_stop_and_a_kill(make_kafka):
    cluster = make_kafka(1)
    publish(cluster, range(20))
    pid = cluster.pid()
    cluster.stop()
    assert not psutil.pid_exists(pid)
    assert (cluster.nodes[1].directory / "data" / ".kafka_cleanshutdown").exists()
    cluster.start()
    publish(cluster, range(20, 40))
    cluster.kill_node(1)
    cluster.start()
    assert read_all(cluster) == scans(range(40))
    assert asyncio.run(apply_topics(settings_of(cluster))) == []


@pytest.mark.long  # test_up.py kills `up`, and its Kafka with it
def test_killing_whoever_started_kafka_leaves_no_java_behind(tmp_path):
    port = find_free_ports(PORTS_PER_NODE)
    code = f"""
    import time
    from pathlib import Path
    from tests.kafka import make_cluster
    cluster = make_cluster(Path({str(tmp_path / "kafka")!r}), port={port})
    cluster.start()
    print(cluster.pid(), flush=True)
    time.sleep(600)
    """
    launcher = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert launcher.stdout is not None
    java = psutil.Process(next(int(line) for line in launcher.stdout if line.strip().isdigit()))
    assert list_serving_nodes("127.0.0.1", port) == {1}
    launcher.kill()
    launcher.wait()
    java.wait(20)
    with make_cluster(tmp_path / "kafka", port=port):
        assert list_serving_nodes("127.0.0.1", port) == {1}


def test_two_run_side_by_side_and_know_nothing_of_each_other(kafka_cluster, make_kafka):
    first, second = kafka_cluster, make_kafka(1)
    publish(first, range(5))
    assert read_all(first) >= scans(range(5))
    assert read_all(second) == set()


@pytest.mark.long  # the short faults break such a cluster in each run
def test_three_nodes_go_on_without_one_of_them(make_kafka):
    cluster = make_kafka(3)
    publish(cluster, range(10))
    cluster.kill_node(2)
    publish(cluster, range(10, 20))
    assert read_all(cluster) == scans(range(20))
    cluster.start_node(2)
    cluster.wait_ready()


@pytest.mark.parametrize("which", [0, 1])
def test_a_taken_port_is_told_before_anything_is_started(tmp_path, monkeypatch, which):
    monkeypatch.setattr("fediwarden.kafka.cluster._PORT_PATIENCE_S", 0.1)
    port = find_free_ports(PORTS_PER_NODE)
    with (
        socket.create_server(("127.0.0.1", port + which)),
        pytest.raises(PortTaken, match=f"{port + which}.*pid {os.getpid()}.*--kafka-port"),
    ):
        make_cluster(tmp_path, port=port).start()
    assert not (tmp_path / "node-1").exists()


def test_a_disk_with_too_little_room_is_told_before_anything_is_started(tmp_path):
    cluster = Cluster(tmp_path, port=find_free_ports(2), classpath=prepare_jars(cache_dir()), min_free_gb=1e9)
    with pytest.raises(DiskFull, match="FEDIWARDEN_KAFKA__MIN_FREE_GB"):
        cluster.start()
    assert not (tmp_path / "node-1").exists()


def test_a_tampered_jar_is_refused_by_name(tmp_path):
    prepare_jars(cache_dir())
    ours = tmp_path / "kafka" / KAFKA_VERSION
    shutil.copytree(cache_dir() / "kafka" / KAFKA_VERSION, ours)
    jar = ours / f"kafka-clients-{KAFKA_VERSION}.jar"
    with jar.open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"\0tampered\0")
    with pytest.raises(JarRefused, match=f"kafka-clients-{KAFKA_VERSION}"):
        prepare_jars(tmp_path)


def test_a_node_that_cannot_start_shows_the_end_of_its_log(tmp_path):
    cluster = make_cluster(tmp_path)
    cluster.start()
    cluster.stop()
    # Another cluster's data under our directory: Kafka refuses to touch it.
    meta = tmp_path / "node-1" / "data" / "meta.properties"
    lines = ["node.id=99" if line.startswith("node.id") else line for line in meta.read_text().splitlines()]
    meta.write_text("\n".join(lines))
    with pytest.raises(NodeFailed, match="did not start") as raised:
        cluster.start()
    assert "99" in str(raised.value)
    assert str(cluster.nodes[1].log_file) in str(raised.value)


@pytest.mark.long  # test_up.py kills a supervised Kafka, which comes back, and the first test here looks at the data
def test_a_supervised_kafka_that_is_killed_comes_back_with_its_data(tmp_path):
    cluster = make_cluster(tmp_path)
    cluster.prepare()

    async def serving() -> None:
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(cluster.is_ready):
                await asyncio.sleep(0.05)

    async def scenario() -> None:
        async with Supervisor(Backoff(first_s=0.1)) as children:
            children.start(*cluster.specs())
            await serving()
            await apply_topics(settings_of(cluster))
            await asyncio.to_thread(publish, cluster, range(10))
            first = children.running()["kafka"]
            os.kill(first, signal.SIGKILL)
            while children.running().get("kafka", first) == first:
                await asyncio.sleep(0.02)
            await serving()
            await asyncio.to_thread(publish, cluster, range(10, 20))
            assert await asyncio.to_thread(read_all, cluster) == scans(range(20))
        assert children.running() == {}

    asyncio.run(scenario())
