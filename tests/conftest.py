"""Fixtures that every test may ask for."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from fediwarden.kafka.cluster import Cluster
from schemas.broker import BrokerSettings, apply_topics
from tests.kafka import running_cluster


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One embedded node for the whole session, with all topics under the default prefix."""
    with running_cluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kafka(kafka_cluster: Cluster) -> BrokerSettings:
    """How to reach the session's Kafka. Its topics are shared by all tests; see `fresh_kafka`."""
    return BrokerSettings(bootstrap_servers=kafka_cluster.bootstrap_servers)


@pytest.fixture(scope="session")
def _prefixes() -> Iterator[int]:
    return count(1)


@pytest.fixture
def fresh_kafka(kafka_cluster: Cluster, _prefixes: Iterator[int]) -> BrokerSettings:
    """The session's Kafka with empty topics (and groups) under a prefix of this test's own."""
    settings = BrokerSettings(bootstrap_servers=kafka_cluster.bootstrap_servers, topic_prefix=f"test{next(_prefixes)}.")
    asyncio.run(apply_topics(settings))
    return settings


@pytest.fixture
def make_kafka(tmp_path: Path) -> Iterator[Callable[[int], Cluster]]:
    """Starts a Kafka for one test alone (1 node or 3), for what would disturb the others: kills, restarts."""
    with ExitStack() as started:
        numbers = count()

        def make(nodes: int = 1) -> Cluster:
            return started.enter_context(running_cluster(tmp_path / f"kafka-{next(numbers)}", nodes=nodes))

        yield make


@pytest.fixture(scope="session")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three embedded nodes with all topics; shared, so leave all three running."""
    with running_cluster(tmp_path_factory.mktemp("kafka3"), nodes=3) as cluster:
        yield cluster
