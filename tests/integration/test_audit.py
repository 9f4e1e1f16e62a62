"""`fediwarden audit` against a real Kafka: recording, kills, rebuild, forgetting."""

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from federation_audit.store.engine import Store
from federation_audit.store.errors import StoreError
from federation_audit.store.migrating import check_schema
from federation_audit.store.queries import read_instances, read_offsets
from federation_audit.store.rescans import read_said
from federation_audit.store.state import read_state
from schemas.broker import AssignedReader, BrokerSettings, Partition, Producer
from schemas.clock import now_ms
from schemas.messages import Decision, Message, OriginObserved, RescanJudged, RescanOrdered, Verdict
from schemas.pseudonyms import Pseudonyms
from schemas.topics import ANSWERS, ORIGINS, VERDICTS
from tests.postgres import running_postgres
from tests.processes import Pipeline, Process, environment_of_process, wait_until
from tests.stores import (
    TOPIC_OF,
    again,
    answered,
    content,
    judged,
    open_store,
    ordered,
    rejudged,
    seen,
    sqlite_url,
    write,
)

pytestmark = pytest.mark.kafka


def publish(kafka: BrokerSettings, messages: Sequence[Message]) -> None:
    async def scenario() -> None:
        async with Producer(kafka, client_id="test") as producer:
            await asyncio.gather(*(producer.publish(TOPIC_OF[type(each)], each, key=key_of(each)) for each in messages))

    asyncio.run(scenario())


def key_of(message: Message) -> bytes:
    if isinstance(message, RescanOrdered):
        return message.rescan.encode()
    if isinstance(message, RescanJudged):
        return message.key
    return getattr(message, "sha256", b"") or getattr(message, "pseudonym", b"") or b"url"


def invented(count: int, seed: int) -> list[Message]:
    """Verdicts, answers and origins as they come: mixed, some twice, some origins before their verdicts."""
    chance = random.Random(seed)
    at = now_ms() - 3_600_000
    said: list[Message] = []
    for number in range(count):
        image = chance.randrange(count // 3)
        decision = chance.choice([Decision.ACCEPT] * 4 + [Decision.REJECT])
        domain = f"i{chance.randrange(7)}.example"
        said.append(
            chance.choice(
                [
                    judged(image, decision, at=at + number),
                    answered(image, at=at + number),
                    seen(image, domain, actor=f"actor {number % 5}", at=at + number, post=f"https://{domain}/{number}"),
                    seen(url=f"https://pictures.example/{image}", author=domain, at=at + number),
                    seen(image, url=f"https://pictures.example/{image}", at=at + number),
                ]
            )
        )
    return said + chance.sample(said, count // 5)


def tally(messages: Sequence[Message]) -> dict[str, tuple[int, int]]:
    """Exposed and flagged by author's instance, counted another way: all of it at once, by plain sets."""
    newest: dict[bytes, Verdict] = {}
    of_url: dict[str, bytes] = {}
    origins: dict[bytes, OriginObserved] = {}
    for each in messages:
        if isinstance(each, Verdict):
            if each.sha256 not in newest or newest[each.sha256].judged_at < each.judged_at:
                newest[each.sha256] = each
        elif isinstance(each, OriginObserved):
            if each.url and each.sha256:
                of_url[each.url] = each.sha256
            if each.origin_id not in origins or origins[each.origin_id].observed_at < each.observed_at:
                origins[each.origin_id] = each
    behind: dict[str, set[bytes]] = defaultdict(set)
    for origin in origins.values():
        sha256 = origin.sha256 or of_url.get(origin.url)
        if origin.author and sha256 in newest:
            behind[origin.author.instance].add(sha256)
    return {
        domain: (len(images), sum(newest[image].decision is not Decision.ACCEPT for image in images))
        for domain, images in behind.items()
    }


async def ends_of(kafka: BrokerSettings) -> dict[Partition, int]:
    async with AssignedReader(kafka, (VERDICTS, ANSWERS, ORIGINS), starts={}, client_id="test") as reader:
        return await reader.ends()


def recorded(url: str) -> int:
    """How many records the store has read; 0 while it is not there."""
    try:
        with Store(url) as store:
            check_schema(store)
            with store.reading() as connection:
                return sum(read_offsets(connection).values())
    except StoreError:
        return 0


def lag(url: str) -> int:
    """How many records the recorder says it has yet to read, -1 while it does not know."""
    with Store(url) as store, store.reading() as connection:
        return read_state(connection).lag


def counted(url: str) -> dict[str, tuple[int, int]]:
    with Store(url) as store, store.reading() as connection:
        return {each.domain: (each.now.exposed, each.now.flagged) for each in read_instances(connection)}


@contextmanager
def recording(kafka: BrokerSettings, folder: Path, **environment: str) -> Iterator[tuple[Pipeline, Process]]:
    with Pipeline(kafka, folder, **environment) as pipeline:
        process = pipeline.start("audit", "record")
        process.wait_for(lambda: "recorder_ready" in process.log, "ready")
        yield pipeline, process


def run(kafka: BrokerSettings, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "FEDIWARDEN_DATA_DIR": str(folder),
        "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "FEDIWARDEN_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
    }
    return subprocess.run(
        [sys.executable, "-m", "fediwarden", "audit", *arguments],
        env=environment_of_process(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


def test_killed_at_any_moment_the_store_counts_what_an_independent_tally_does(fresh_kafka, tmp_path):
    messages = invented(900, seed=1)
    url = sqlite_url(tmp_path)
    chance = random.Random(2)
    with Pipeline(fresh_kafka, tmp_path, FEDIWARDEN_AUDIT__BATCH="15") as pipeline:
        for part in range(3):
            publish(fresh_kafka, messages[part::3])
            process = pipeline.start("audit", "record")
            some = recorded(url) + chance.randrange(1, 250)
            process.wait_for(lambda some=some: recorded(url) >= some, "under way")
            process.kill()
        process = pipeline.start("audit", "record")
        ends = sum(asyncio.run(ends_of(fresh_kafka)).values())
        process.wait_for(lambda: recorded(url) == ends, "at the end of the topics")
        process.wait_for(lambda: lag(url) == 0, "known to have read everything")
        assert process.stop() == 0, process.log
    assert ends == len(messages)
    assert counted(url) == tally(messages)
    with Store(url) as store, open_store(sqlite_url(tmp_path / "other")) as other:
        write(other, messages)
        assert content(store) == content(other)


@pytest.mark.long
@pytest.mark.timeout(400)  # six starts of processes, and the wait after a refusal
def test_on_postgresql_kills_outages_and_rights_taken_away_change_no_count(fresh_kafka, tmp_path):
    messages = invented(600, seed=4)
    with running_postgres() as postgres, Pipeline(fresh_kafka, tmp_path, FEDIWARDEN_AUDIT__BATCH="15") as pipeline:
        name = postgres.make_database("")
        postgres.server.execute("CREATE ROLE audit LOGIN PASSWORD 'secret'")
        url = postgres.server.url(name, user="audit", password="secret")

        def start() -> Process:
            return pipeline.start("audit", "record", FEDIWARDEN_AUDIT__DATABASE=url)

        without_rights = start()
        assert without_rights.wait() == 78, without_rights.log
        assert "permission denied" in without_rights.log
        assert "audit.database" in without_rights.log
        assert "secret" not in without_rights.log
        postgres.server.execute("GRANT CREATE ON SCHEMA public TO audit", database=name)

        publish(fresh_kafka, messages[0::3])
        killed = start()
        killed.wait_for(lambda: recorded(url) >= 50, "under way")
        killed.kill()

        process = start()
        publish(fresh_kafka, messages[1::3])
        some = recorded(url) + 50
        process.wait_for(lambda: recorded(url) >= some, "under way")
        postgres.stop()
        process.wait_for(lambda: "store_unavailable" in process.log, "without a database")
        postgres.start()

        process.wait_for(lambda: recorded(url) == 2 * len(messages) // 3, "at work again")
        postgres.server.execute("ALTER TABLE media OWNER TO postgres", database=name)
        publish(fresh_kafka, messages[2::3])
        process.wait_for(lambda: "store_refused" in process.log, "without a right")
        postgres.server.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON media TO audit", database=name)
        process.wait_for(lambda: recorded(url) == len(messages), "at the end of the topics")
        assert process.stop() == 0, process.log
        assert counted(url) == tally(messages)
        with Store(url) as store, open_store(sqlite_url(tmp_path / "other")) as other:
            write(other, messages)
            assert content(store) == content(other)


def test_a_rebuild_gives_the_same_content_with_a_process_that_records_and_without(fresh_kafka, tmp_path):
    job = ordered(at=now_ms() - 1_000)
    said = [again(number, after=Decision.REJECT if number % 3 else Decision.ACCEPT) for number in range(900)]
    batches = [rejudged(*said[first : first + 500], at=now_ms()) for first in (0, 400)]
    publish(fresh_kafka, [*invented(300, seed=3), job, *batches])
    alone = run(fresh_kafka, tmp_path, "rebuild")
    assert alone.returncode == 0, alone.stderr
    assert "363 records read" in alone.stdout
    url = sqlite_url(tmp_path)
    with Store(url) as store:
        before = content(store)
        with store.reading() as connection:
            found = read_said(connection, job)
    assert (found.spoken, found.flips) == (900, 600), "what two batches say of one image counts once"
    with recording(fresh_kafka, tmp_path) as (_, process):
        beside = run(fresh_kafka, tmp_path, "rebuild")
        assert (beside.returncode, beside.stdout) == (0, alone.stdout), beside.stderr
        assert "rebuild_begins" in process.log
        with Store(url) as store:
            assert content(store) == before
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


def test_of_two_processes_one_records_and_the_other_takes_over(fresh_kafka, tmp_path):
    url = sqlite_url(tmp_path)
    with recording(fresh_kafka, tmp_path) as (pipeline, first):
        second = pipeline.start("audit", "record")
        second.wait_for(lambda: "waiting_for_the_store" in second.log, "waiting")
        publish(fresh_kafka, [judged(1, at=now_ms())])
        wait_until(lambda: recorded(url) == 1, "recorded")
        first.kill()
        second.wait_for(lambda: "recorder_ready" in second.log, "in charge")
        publish(fresh_kafka, [judged(2, at=now_ms())])
        wait_until(lambda: recorded(url) == 2, "recorded by the second")


def test_the_commands_show_an_instance_and_forget_an_actor_for_good(fresh_kafka, tmp_path):
    at = now_ms() - 1_000
    actor = "https://a.example/u/alice"
    found = Pseudonyms.open(tmp_path / "actors.json").pseudonym(actor)
    assert found is not None
    origin = seen(1, "a.example", actor="x", at=at, post="https://a.example/post/1")
    assert origin.author is not None
    author = origin.author.model_copy(update={"pseudonym": found.value, "key_id": found.key_id})
    early = run(fresh_kafka, tmp_path, "instances")
    assert early.returncode == 78
    assert "fediwarden audit record" in early.stderr
    publish(fresh_kafka, [judged(1, Decision.REJECT, at=at), origin.model_copy(update={"author": author})])
    with recording(fresh_kafka, tmp_path):
        wait_until(lambda: recorded(sqlite_url(tmp_path)) == 2, "recorded")
        (instance,) = json.loads(run(fresh_kafka, tmp_path, "instances", "--json").stdout)
        assert {name: instance[name] for name in ("domain", "images", "flagged", "incidents")} == {
            "domain": "a.example",
            "images": 1,
            "flagged": 1,
            "incidents": 1,
        }
        table = run(fresh_kafka, tmp_path, "instance", "A.example")
        assert table.returncode == 0, table.stderr
        assert "1 images judged, 1 flagged now, 1 incidents" in table.stdout
        forgot = run(fresh_kafka, tmp_path, "forget", actor)
        assert forgot.returncode == 0, forgot.stderr
        assert json.loads(run(fresh_kafka, tmp_path, "instances", "--json").stdout) == []
        assert run(fresh_kafka, tmp_path, "rebuild").returncode == 0
        assert run(fresh_kafka, tmp_path, "instance", "a.example").returncode == 1
    later = run(fresh_kafka, tmp_path, "forget", actor, "--wait", "0")
    assert later.returncode == 1
    assert "audit record" in later.stderr
