"""The looks of one tenant, on a real PostgreSQL; what Kafka does is a list."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from federation_audit.lemmy.database import LemmyDatabase, Sought
from federation_audit.lemmy.links import Links
from federation_audit.lemmy.looker import Looker
from federation_audit.lemmy.settings import LemmySettings
from schemas.broker import Received
from schemas.clock import now_ms
from schemas.messages import OriginObserved, Place
from schemas.pseudonyms import Pseudonyms
from schemas.topics import ORIGINS
from tests.lemmy import Lemmy, schema_of
from tests.postgres import Postgres

PATIENCE_S = 60.0
URL = "https://img.example/a.png"
SETTINGS = {"looks_s": (0.2, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 600.0), "sweep_every_s": 0.5, "retry_most_s": 1.0}


class Watched:
    """A looker that runs, what it published and which offsets it is done with."""

    def __init__(self, url: str, folder: Path, **settings: object) -> None:
        self.origins: list[OriginObserved] = []
        self.done: list[int] = []
        chosen = LemmySettings.model_validate(SETTINGS | settings)
        self.looker = Looker(
            "default",
            LemmyDatabase("default", url, chosen),
            chosen,
            links=Links(10),
            pseudonyms=Pseudonyms.open(folder / "actors.json"),
            publish=self._publish,
            done=lambda received: self.done.append(received.offset),
            observer="test",
        )

    async def _publish(self, origin: OriginObserved) -> None:
        self.origins.append(origin)

    def see(self, name: Sought, offset: int) -> bool:
        held = Received(ORIGINS, 0, offset, now_ms(), None, None, None, 0)
        return self.looker.add(b"", name, seen_at=now_ms(), held=held)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def looking(url: str, folder: Path, **settings: object) -> AsyncIterator[Watched]:
    watched = Watched(url, folder, **settings)
    running = asyncio.create_task(watched.looker.run())
    try:
        yield watched
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await watched.looker.close()


@pytest.fixture
def database(postgres: Postgres) -> str:
    return postgres.server.url(postgres.make_database(schema_of("1.0")))


def test_rows_written_later_are_found_by_a_later_look_and_the_offset_is_done_then(
    database: str, tmp_path: Path
) -> None:
    async def follow() -> None:
        lemmy = Lemmy(database, "1.0")
        async with looking(database, tmp_path) as watched:
            assert watched.see(Sought("", URL), 1)
            assert not watched.see(Sought("", URL), 2), "it waits already"
            lemmy.post(lemmy.person("mallory", "bad.example"), lemmy.community("cats"), url=URL)
            await watched.until(lambda: watched.done == [1])
            assert [origin.place for origin in watched.origins] == [Place.POST_LINK]
            assert watched.see(Sought("", URL), 3), "seen again: there may be another place"
            lemmy.person("trent", "bad.example", avatar=URL)
            await watched.until(lambda: watched.done == [1, 3])
            assert [origin.place for origin in watched.origins] == [Place.POST_LINK, Place.AVATAR]
        lemmy.close()

    asyncio.run(follow())


def test_what_is_nowhere_ends_after_its_last_look_and_a_sweep(database: str, tmp_path: Path) -> None:
    async def follow() -> None:
        Lemmy(database, "1.0").close()
        async with looking(database, tmp_path, looks_s=(0.1, 0.2)) as watched:
            watched.see(Sought("a.png", URL), 1)
            await watched.until(lambda: watched.done == [1])
            assert watched.origins == [] and len(watched.looker) == 0
            assert not watched.looker.add(b"", Sought("old.png", ""), seen_at=0, held=None), "too long ago"

    asyncio.run(follow())


def test_a_database_that_goes_away_and_comes_back_is_asked_again(postgres: Postgres, tmp_path: Path) -> None:
    async def follow() -> None:
        name = postgres.make_database(schema_of("0.19"))
        lemmy = Lemmy(postgres.server.url(name), "0.19")
        alice, cats = lemmy.person("alice"), lemmy.community("cats")
        lemmy.post(alice, cats, url=URL)
        lemmy.post(alice, cats, url=URL + "2")
        async with looking(postgres.server.url(name), tmp_path) as watched:
            watched.see(Sought("", URL), 1)
            await watched.until(lambda: watched.done == [1])
            await asyncio.to_thread(postgres.stop)
            watched.see(Sought("", URL + "2"), 2)
            await watched.until(lambda: watched.looker._fault)
            assert watched.done == [1]
            postgres.start()  # by this thread: a server goes with the thread that started it
            await watched.until(lambda: watched.done == [1, 2])
        lemmy.close()

    asyncio.run(follow())
