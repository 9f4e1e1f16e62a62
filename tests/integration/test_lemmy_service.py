"""`fediwarden lemmy` on a real Apache Kafka and a real PostgreSQL."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from federation_audit.lemmy.service import serve
from federation_audit.lemmy.settings import LemmySettings
from schemas.broker import BrokerSettings, Producer, Received, Tail
from schemas.clock import now_ms
from schemas.messages import AnsweredBy, AnswerGiven, Decision, Message, OriginMethod, OriginObserved, Place
from schemas.pseudonyms import Pseudonyms
from schemas.topics import ANSWERS, ORIGINS
from tests.lemmy import Lemmy, grants_of, schema_of
from tests.postgres import Postgres, running_postgres
from tests.processes import Pipeline

pytestmark = pytest.mark.kafka

PATIENCE_S = 60.0
URL = "https://img.example/a.png"
SHA256 = hashlib.sha256(b"an image").digest()
SETTINGS = {"looks_s": (0.2, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 600.0), "sweep_every_s": 0.5, "retry_most_s": 1.0}


class Observed:
    """The origins that the service publishes."""

    def __init__(self) -> None:
        self.origins: list[OriginObserved] = []
        self._changed = asyncio.Event()

    def note(self, received: Received) -> None:
        if isinstance(received.message, OriginObserved) and received.message.method is OriginMethod.DATABASE:
            self.origins.append(received.message)
            self._changed.set()

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    @property
    def places(self) -> set[Place]:
        return {origin.place for origin in self.origins}


@pytest.fixture
def lemmy(postgres: Postgres) -> Iterator[Lemmy]:
    lemmy = Lemmy(postgres.server.url(postgres.make_database(schema_of("1.0"))), "1.0")
    yield lemmy
    lemmy.close()


@contextlib.asynccontextmanager
async def serving(kafka: BrokerSettings, url: str, folder: Path) -> AsyncIterator[tuple[Observed, Producer]]:
    """The service on one database, what it publishes, and a producer beside it."""
    stop = asyncio.Event()
    observed = Observed()
    pseudonyms = Pseudonyms.open(folder / "actors.json")
    settings = LemmySettings.model_validate(SETTINGS)
    async with (
        Producer(kafka, client_id="test") as producer,
        Tail(kafka, [ORIGINS], since_s=3600.0, on_record=observed.note, client_id="test") as tail,
    ):
        await tail.wait_positioned()
        service = asyncio.create_task(serve(settings, {"default": SecretStr(url)}, kafka, pseudonyms, stop))
        try:
            yield observed, producer
        finally:
            stop.set()
            await service


def seen(**facts: object) -> OriginObserved:
    """What the relay says of an image."""
    given = {"tenant": "default", "place": Place.PROXIED, "method": OriginMethod.RELAY, "observed_at": now_ms()}
    return OriginObserved.model_validate(given | facts)


async def publish(producer: Producer, message: OriginObserved | AnswerGiven) -> None:
    assert isinstance(message, Message)
    await producer.publish(ORIGINS if isinstance(message, OriginObserved) else ANSWERS, message, key=b"key")


def answered() -> AnswerGiven:
    return AnswerGiven(
        scan_id="scan",
        tenant="default",
        sha256=SHA256,
        status=200,
        decision=Decision.ACCEPT,
        answered_by=AnsweredBy.VERDICT,
        answered_at=now_ms(),
        milliseconds=1.0,
    )


def test_a_row_that_is_written_after_the_first_look_is_found_by_a_later_one(
    fresh_kafka: BrokerSettings, lemmy: Lemmy, tmp_path: Path
) -> None:
    async def follow() -> None:
        async with serving(fresh_kafka, lemmy._connection.info.dsn, tmp_path) as (observed, producer):
            await publish(producer, seen(url=URL, sha256=SHA256))
            lemmy.person("mallory", "bad.example", avatar=lemmy.proxied("https%3A%2F%2Fimg.example%2Fa.png"))
            await observed.until(lambda: Place.AVATAR in observed.places)
            await publish(producer, seen(alias="b.png"))
            lemmy.upload("b.png", lemmy.person("alice"))
            await observed.until(lambda: Place.UPLOAD in observed.places)
        avatar = next(origin for origin in observed.origins if origin.place is Place.AVATAR)
        assert (avatar.sha256, avatar.url) == (SHA256, URL)
        assert avatar.author is not None and avatar.author.instance == "bad.example"
        assert len({origin.origin_id for origin in observed.origins}) == len(observed.origins) == 2

    asyncio.run(follow())


def test_an_answer_for_known_bytes_is_looked_for_under_the_names_that_are_known(
    fresh_kafka: BrokerSettings, lemmy: Lemmy, tmp_path: Path
) -> None:
    async def follow() -> None:
        cats = lemmy.community("cats")
        async with serving(fresh_kafka, lemmy._connection.info.dsn, tmp_path) as (observed, producer):
            lemmy.post(lemmy.person("alice"), cats, url=URL)
            await publish(producer, seen(url=URL, sha256=SHA256))
            await observed.until(lambda: len(observed.origins) == 1)
            lemmy.post(lemmy.person("bob"), cats, url=URL)
            await publish(producer, answered())
            await observed.until(lambda: len(observed.origins) == 2)
        assert {origin.sha256 for origin in observed.origins} == {SHA256}
        assert len({origin.author.pseudonym for origin in observed.origins if origin.author}) == 2

    asyncio.run(follow())


def test_what_was_waiting_at_a_stop_is_looked_for_after_the_next_start(
    fresh_kafka: BrokerSettings, lemmy: Lemmy, tmp_path: Path
) -> None:
    async def follow() -> None:
        async with serving(fresh_kafka, lemmy._connection.info.dsn, tmp_path) as (observed, producer):
            await publish(producer, seen(url=URL))
            lemmy.upload("b.png", lemmy.person("alice"))
            await publish(producer, seen(alias="b.png"))
            await observed.until(lambda: Place.UPLOAD in observed.places)  # so the first was read as well
        lemmy.post(lemmy.person("mallory"), lemmy.community("cats"), url=URL)
        async with serving(fresh_kafka, lemmy._connection.info.dsn, tmp_path) as (observed, _):
            await observed.until(lambda: Place.POST_LINK in observed.places)

    asyncio.run(follow())


def test_a_database_that_goes_away_and_comes_back_is_asked_again(fresh_kafka: BrokerSettings, tmp_path: Path) -> None:
    async def follow() -> None:
        with running_postgres() as postgres:
            name = postgres.make_database(schema_of("0.19"))
            lemmy = Lemmy(postgres.server.url(name), "0.19")
            alice, cats = lemmy.person("alice"), lemmy.community("cats")
            lemmy.post(alice, cats, url=URL)
            lemmy.post(alice, cats, url=URL + "2")
            url = postgres.server.url(name)
            async with serving(fresh_kafka, url, tmp_path) as (observed, producer):
                await publish(producer, seen(url=URL))
                await observed.until(lambda: len(observed.origins) == 1)
                await asyncio.to_thread(postgres.stop)
                await publish(producer, seen(url=URL + "2"))
                postgres.start()  # by this thread: a server goes with the thread that started it
                await observed.until(lambda: len(observed.origins) == 2)
            lemmy.close()

    asyncio.run(follow())


def test_the_command_names_a_missing_grant_and_works_once_it_is_there(
    fresh_kafka: BrokerSettings, postgres: Postgres, lemmy: Lemmy, tmp_path: Path
) -> None:
    role = "reader_of_the_command"
    lemmy.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret-word'")
    lemmy.execute(grants_of("1.0", role))
    lemmy.execute(f"REVOKE SELECT (body) ON post FROM {role}")
    url = postgres.server.url(lemmy._connection.info.dbname, user=role, password="secret-word")
    with Pipeline(fresh_kafka, tmp_path, FEDIWARDEN_TENANTS__DEFAULT__LEMMY_DATABASE=url) as pipeline:
        check = pipeline.start("lemmy", "--check")
        assert check.wait(PATIENCE_S) == 1
        assert f'GRANT SELECT (body) ON post TO "{role}";' in check.log
        served = pipeline.start("lemmy", FEDIWARDEN_LEMMY__LOOKS_S="[0.1, 600]", FEDIWARDEN_LEMMY__RETRY_MOST_S="1")
        served.wait_for(lambda: "lemmy_ready" in served.log, "ready")

        async def tell() -> None:
            async with Producer(fresh_kafka, client_id="test") as producer:
                await publish(producer, seen(url=URL))

        asyncio.run(tell())
        served.wait_for(lambda: "GRANT SELECT (body) ON post" in served.log, "told of the missing grant")
        lemmy.execute(f"GRANT SELECT (body) ON post TO {role}")
        served.wait_for(lambda: "lemmy_database_answers_again" in served.log, "asking again")
        served.stop()
        assert "secret-word" not in served.log + check.log and URL not in served.log


def test_the_command_needs_a_database(fresh_kafka: BrokerSettings, tmp_path: Path) -> None:
    with Pipeline(fresh_kafka, tmp_path) as pipeline:
        process = pipeline.start("lemmy")
        assert process.wait(PATIENCE_S) == 78
        assert "tenants.<name>.lemmy_database" in process.log
