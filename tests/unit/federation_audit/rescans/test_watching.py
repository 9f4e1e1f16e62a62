"""What is seen of the rescan at work: true when Kafka tells, and unknown when it does not."""

import asyncio
from dataclasses import replace

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from federation_audit.pages.metrics import make_metrics_app
from federation_audit.rescans.metrics import RescanCollector
from federation_audit.rescans.watching import IDLE_AFTER_MS, RescanWatch, Seen
from federation_audit.store.engine import Store
from schemas.broker import BrokerSettings, BrokerUnavailable
from schemas.messages import RescanOrdered, RescanState
from schemas.rescan_progress import Progress
from tests.stores import RESCAN, open_store, ordered, sqlite_url, write

NOWHERE = BrokerSettings(bootstrap_servers="127.0.0.1:1")
JOB = ordered(RescanState.RUNNING)


class Group:
    """Says how far a rescan is, one look after the other."""

    def __init__(self, *looks: Progress | Exception) -> None:
        self.looks = list(looks)
        self.asked: list[str] = []

    async def read(self, broker: BrokerSettings, job: RescanOrdered) -> Progress:
        self.asked.append(job.rescan)
        found = self.looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def watching(store: Store, *looks: Progress | Exception) -> RescanWatch:
    group = Group(*looks)
    watch = RescanWatch(store, NOWHERE, read=group.read)
    for _ in looks:
        asyncio.run(watch.look())
    assert group.asked == [RESCAN] * len(looks)
    return watch


@pytest.fixture
def sqlite(tmp_path):
    with open_store(sqlite_url(tmp_path)) as store:
        write(store, [JOB])
        yield store


def test_rate_and_whether_anybody_works_come_from_looking_twice(sqlite: Store) -> None:
    seen = watching(sqlite, Progress(0, 1_000, 1_000), Progress(100, 1_000, 11_000)).seen
    assert seen is not None and seen.progress is not None
    assert (seen.progress.left, seen.progress.rate, seen.progress.left_s) == (900, 10.0, 90.0)
    assert (seen.since, seen.moved_at) == (1_000, 11_000)
    assert seen.is_worked_on(11_500) is True


def test_one_that_did_not_move_for_a_minute_is_worked_on_by_nobody(sqlite: Store) -> None:
    still = [Progress(5, 10, at) for at in (0, 30_000, 59_000)]
    seen = watching(sqlite, *still).seen
    assert seen is not None
    assert seen.is_worked_on(59_000) is None, "nobody has looked for a minute yet"
    seen = watching(sqlite, *still, Progress(5, 10, IDLE_AFTER_MS)).seen
    assert seen is not None
    assert seen.is_worked_on(IDLE_AFTER_MS) is False
    assert seen.is_worked_on(2 * IDLE_AFTER_MS) is None, "and nobody knows when Kafka has not told for as long"


def test_a_kafka_that_is_away_is_said_and_what_was_seen_stays(sqlite: Store) -> None:
    first = Progress(5, 10, 1_000)
    watch = watching(sqlite, first, BrokerUnavailable("127.0.0.1:1 is away"))
    seen = watch.seen_of(RESCAN)
    assert seen is not None
    assert (seen.progress, seen.fault) == (first, "127.0.0.1:1 is away")
    assert watch.seen_of("another") is None
    back = watching(sqlite, BrokerUnavailable("away"), first).seen
    assert back is not None
    assert (back.fault, back.progress, back.since) == ("", first, 1_000)


def test_nothing_is_seen_of_one_that_is_done_and_kafka_is_not_asked(sqlite: Store) -> None:
    watch = watching(sqlite, Progress(5, 10, 1_000))
    write(sqlite, [JOB.model_copy(update={"state": RescanState.FINISHED})])
    asyncio.run(watch.look())
    assert watch.seen is None


def scrape(watch: RescanWatch, at_ms: int) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(RescanCollector(watch, clock=lambda: at_ms))
    lines = generate_latest(registry).decode().splitlines()
    return {(parts := line.rsplit(" ", 1))[0]: float(parts[1]) for line in lines if not line.startswith("#")}


def test_metrics_say_how_far_it_is_and_nothing_that_is_not_known(sqlite: Store) -> None:
    labels = f'{{rescan="{RESCAN}",tier="scores"}}'
    watch = watching(sqlite, Progress(0, 1_000, 1_000), Progress(100, 1_000, 11_000))
    assert scrape(watch, 12_000) == {
        f"fediwarden_rescan_records_done{labels}": 100.0,
        f"fediwarden_rescan_records_left{labels}": 900.0,
        f"fediwarden_rescan_rate{labels}": 10.0,
        f"fediwarden_rescan_seconds_left{labels}": 90.0,
    }
    assert scrape(watch, 11_000 + IDLE_AFTER_MS) == {}, "nobody knows any more"
    once = scrape(watching(sqlite, Progress(7, 10, 1_000)), 1_000)
    assert once == {f"fediwarden_rescan_records_done{labels}": 7, f"fediwarden_rescan_records_left{labels}": 3}
    assert watch.seen is not None
    watch.seen = None
    assert scrape(watch, 1_000) == {}


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("10.1.2.3", {}, 200),
        ("::1", {}, 200),
        ("::ffff:192.168.1.9", {}, 200),
        ("203.0.113.9", {}, 403),
        ("127.0.0.1", {"x-forwarded-for": "203.0.113.9"}, 403),
        ("127.0.0.1", {"forwarded": "for=203.0.113.9"}, 403),
        ("nonsense", {}, 403),
    ],
)
def test_metrics_are_for_those_who_come_by_themselves_from_near(
    sqlite: Store, address: str, headers: dict[str, str], status: int
) -> None:
    watch = RescanWatch(sqlite, NOWHERE)
    watch.seen = Seen(JOB)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(make_metrics_app(RescanCollector(watch)), client=(address, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get("/metrics", headers=headers)

    answer = asyncio.run(ask())
    assert answer.status_code == status
    assert RESCAN not in answer.text, "no progress is known"
    watch.seen = replace(watch.seen, progress=Progress(1, 2, 10**15))
    assert (RESCAN in asyncio.run(ask()).text) is (status == 200)
