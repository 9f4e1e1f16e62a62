"""Fixtures that every test may ask for."""

import asyncio
import fcntl
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fediwarden.kafka.cluster import Cluster
from schemas.broker import BrokerSettings, apply_topics
from tests.durations import SECONDS, UNKNOWN_S
from tests.kafka import running_cluster
from tests.postgres import Postgres, running_postgres

# Examples are the same in every run, so that a change is judged by what it changed, and however long one takes: that
# says more of the machine. `make test-long` tries all that `thorough` names, `--hypothesis-profile=explore` many more.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("thorough", settings.get_profile("steady"))
settings.register_profile("explore", settings.get_profile("steady"), derandomize=False, max_examples=1000)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the machine for itself comes last: so that hardly anybody waits for it.

    Units come first, before a Kafka runs beside them to the end; then what takes longest, so that none of that is left
    over when all else is done.
    """
    here = Path(__file__).parent
    of_files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        of_files.setdefault(item.path, []).append(item)

    def is_small(item: pytest.Item) -> bool:
        return item.path.is_relative_to(here / "unit") and item.get_closest_marker("kafka") is None

    def weight(path: Path) -> tuple[int, int]:  # the larger of two that nobody has timed takes longer
        return SECONDS.get(path.relative_to(here).as_posix(), UNKNOWN_S), path.stat().st_size

    files = sorted(of_files, key=lambda path: (weight(path), path), reverse=True)
    ordered = [item for path in files for item in of_files[path]]
    ordered.sort(key=lambda item: (item.get_closest_marker("alone") is not None, not is_small(item)))
    items[:] = ordered


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In a fresh clone, whichever worker is first at a file rewrites its assertions; the others load what it kept."""
    if not isinstance(collector, pytest.Module) or not hasattr(collector.config, "workerinput"):
        return (yield)
    with collector.path.open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest-timeout: waiting for one's turn is not the test's time
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tests run beside those of the other workers, but for those marked `alone`, beside which none runs.

    The lock is this file: two runs in one checkout keep out of each other's way as well.
    """
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with Path(__file__).open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        return (yield)


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


@pytest.fixture(scope="session")
def make_topics(kafka: BrokerSettings, _prefixes: Iterator[int]) -> Callable[[], BrokerSettings]:
    """Makes empty topics (and groups) under a new prefix in the session's Kafka, for fixtures that tests share."""

    def make() -> BrokerSettings:
        settings = kafka.model_copy(update={"topic_prefix": f"test{next(_prefixes)}."})
        asyncio.run(apply_topics(settings))
        return settings

    return make


@pytest.fixture
def fresh_kafka(make_topics: Callable[[], BrokerSettings]) -> BrokerSettings:
    """The session's Kafka with empty topics (and groups) under a prefix of this test's own."""
    return make_topics()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for the whole session; each test makes databases of its own in it."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def make_kafka(tmp_path: Path) -> Iterator[Callable[[int], Cluster]]:
    """Starts a Kafka for one test alone (1 node or 3), for what would disturb the others: kills, restarts."""
    with ExitStack() as started:
        numbers = count()

        def make(nodes: int = 1) -> Cluster:
            return started.enter_context(running_cluster(tmp_path / f"kafka-{next(numbers)}", nodes=nodes))

        yield make
