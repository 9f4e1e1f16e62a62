"""The embedded Kafka for tests: real nodes on free ports, in directories of their own."""

import asyncio
import os
import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fediwarden.kafka.cluster import PORTS_PER_NODE, Cluster
from fediwarden.kafka.jars import prepare_jars
from schemas.broker import BrokerSettings, apply_topics


def cache_dir() -> Path:
    """Where jars and models are kept between runs: what the program itself uses."""
    named = os.environ.get("FEDIWARDEN_CACHE_DIR")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fediwarden"


def find_free_ports(count: int) -> int:
    """The first of `count` adjoining ports that nobody listens on, below the range the kernel gives to clients."""
    for _ in range(200):
        base = random.randrange(20_000, 32_000)
        if all(_is_free(port) for port in range(base, base + count)):
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
        java_options=("-XX:TieredStopAtLevel=1",),  # a test's Kafka does not live to earn the optimising compiler
    )


@contextmanager
def running_cluster(
    directory: Path, *, nodes: int = 1, properties: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A started cluster with all topics applied."""
    with make_cluster(directory, nodes=nodes, properties=properties) as cluster:
        asyncio.run(apply_topics(BrokerSettings(bootstrap_servers=cluster.bootstrap_servers)))
        yield cluster
