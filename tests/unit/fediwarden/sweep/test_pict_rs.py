"""A pict-rs as a source, against the stand-in; tests/pictrs does the same with the real one."""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fediwarden.sweep.errors import ObjectGone, ObjectUnread, SourceAway, SourceRefused
from fediwarden.sweep.pict_rs import PictRsSource
from fediwarden.sweep.source import Body, Page, StoredObject
from tests.pict_rs import API_KEY, PictRsServer, running_pict_rs

JPEG = 5
PICTURE = b"\xff\xd8\xff" + bytes(5000)  # as a JPEG begins; nobody decodes it here


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PictRsServer]:
    with running_pict_rs(tmp_path / "pict-rs") as server:
        yield server


def _keep(server: PictRsServer, *numbers: int) -> list[str]:
    return [server.files.keep(PICTURE + bytes([number]), JPEG) for number in numbers]


@contextlib.asynccontextmanager
async def _source(server: PictRsServer, *, page: int = 3, key: str = API_KEY):  # type: ignore[no-untyped-def]
    source = PictRsSource(server.url, key, page=page)
    try:
        yield source
    finally:
        await source.close()


async def _rest(
    source: PictRsSource, position: tuple[str, ...] = (), marks: tuple[str, ...] = ()
) -> tuple[list[StoredObject], list[Page]]:
    pages = [await source.page(position, marks)]
    while not pages[-1].last:
        pages.append(await source.page(pages[-1].position, marks))
    return [each for page in pages for each in page.objects], pages


def test_every_file_comes_once_the_newest_first_with_all_its_aliases(server: PictRsServer) -> None:
    _keep(server, *range(10))
    twice = _keep(server, 3)

    async def go() -> None:
        async with _source(server) as source:
            found, pages = await _rest(source)
            assert [each.key for each in found] == [place.name for place in server.files.places()]
            assert [len(page.objects) for page in pages] == [3, 3, 3, 1]
            assert [bool(page.marks) for page in pages] == [True, False, False, False]
            both = next(each for each in found if twice[0] in each.aliases)
            assert len(both.aliases) == 2
            with Body(1 << 20) as body:
                await source.read(both, body)
                assert body.sha256 == hashlib.sha256(PICTURE + bytes([3])).digest()

    asyncio.run(go())


def test_the_place_is_found_again_when_the_next_files_and_some_before_are_removed(server: PictRsServer) -> None:
    _keep(server, *range(12))

    async def go() -> None:
        async with _source(server) as source:
            first = await source.page((), ())
            second = await source.page(first.position, ())
            order = server.files.places()
            for place in (order[6], order[5]):  # the next one, and the one that came last
                server.files.remove(place)
        async with _source(server) as source:  # another process
            rest, pages = await _rest(source, second.position)
            assert [each.key for each in rest] == [place.name for place in order[7:]]
            assert not any(page.note for page in pages)
            for place in server.files.places():
                server.files.remove(place)
            _keep(server, 20, 21)
            lost = await source.page(second.position, ())
            assert len(lost.objects) == 2 and "begins at the newest again" in lost.note and lost.marks

    asyncio.run(go())


def test_a_later_pass_ends_where_the_one_before_began(server: PictRsServer) -> None:
    _keep(server, *range(8))

    async def go() -> None:
        async with _source(server) as source:
            _, pages = await _rest(source)
            marks = pages[0].marks
            assert (await _rest(source, (), marks))[0] == []
            server.files.remove(server.files.places()[0])  # the newest of then: the one behind it does, too
            new = _keep(server, 100, 101, 102, 103)
            found, _ = await _rest(source, (), marks)
            assert {each.path for each in found} == set(new)

    asyncio.run(go())


def test_a_purge_is_waited_for_and_a_file_that_is_gone_is_no_fault(server: PictRsServer) -> None:
    _keep(server, 1, 2)
    server.purge_after_s = 0.6

    async def go() -> None:
        async with _source(server) as source:
            (one, other), _ = await _rest(source)
            await source.remove(one)
            assert [place.name for place in server.files.places()] == [other.key]
            await source.remove(one)
            with Body(1 << 20) as body, pytest.raises(ObjectGone):
                await source.read(one, body)

    asyncio.run(go())


def test_an_empty_pict_rs_is_one_empty_page(server: PictRsServer) -> None:
    async def go() -> None:
        async with _source(server) as source:
            assert await source.page((), ()) == Page((), (), last=True)

    asyncio.run(go())


def test_a_wrong_key_and_a_pict_rs_that_is_away_are_told_apart(server: PictRsServer) -> None:
    async def check(key: str = API_KEY) -> None:
        async with _source(server, key=key) as source:
            await source.check()

    with pytest.raises(SourceRefused, match="PICTRS__SERVER__API_KEY"):
        asyncio.run(check("wrong"))
    server.behave("error")
    with pytest.raises(SourceAway, match="500"):
        asyncio.run(check())
    server.behave("drop")
    with pytest.raises(SourceAway, match="no answer"):
        asyncio.run(check())
    server.behave("well")
    asyncio.run(check())


def test_nothing_is_moved_within_it(server: PictRsServer) -> None:
    _keep(server, 1)

    async def go() -> None:
        async with _source(server) as source:
            ((stored,), _) = await _rest(source)
            with Body(1 << 20) as body, pytest.raises(ObjectUnread, match="--apply purges"):
                await source.move(stored, body)
            assert len((await _rest(source))[0]) == 1

    asyncio.run(go())
