"""A pict-rs as the source of a sweep: by its internal API, the newest file first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import quote

import httpx

from fediwarden.sweep.errors import ObjectGone, ObjectUnread, SourceAway, SourceRefused
from fediwarden.sweep.source import Body, Page, StoredObject
from gateway.enforcement.pict_rs import HashPage, PictRs, PictRsError, PictRsRefused, StoredHash, slug_of

PAGE = 50
_MARKS = 60
_WAYMARKS = 20
"""How many of the files that came last are remembered: where the next one is removed meanwhile, they tell the place."""

_ANSWER_WITHIN_S = 30.0
_GONE_WITHIN_S = 10.0
_ASK_AGAIN_S = 0.2


class PictRsSource:
    """All that the pict-rs at `address` keeps. Every file there has one hash, and so is seen once.

    A position is the slug to go on with and, behind it, those of the files before it. Marks are the hashes of the
    newest files of a pass: the next one, which begins at the newest again, ends at the first of them that it meets.
    """

    def __init__(self, address: str, api_key: str, *, page: int = PAGE) -> None:
        self.name = f"pict-rs {address}"
        self.identity = f"pict-rs {address}"
        self._page = page
        self._api = PictRs(address, api_key, answer_within_s=_ANSWER_WITHIN_S)
        # Originals are public, and pict-rs may send us to its own store for them: where our key has no business.
        self._originals = httpx.AsyncClient(
            base_url=self._api.address, timeout=_ANSWER_WITHIN_S, follow_redirects=True, trust_env=False
        )

    async def close(self) -> None:
        """Disconnect."""
        await self._api.close()
        await self._originals.aclose()

    async def check(self) -> None:
        """Return when the internal API answers and takes our key."""
        await self._ask(None, 1)

    async def page(self, position: tuple[str, ...], marks: tuple[str, ...]) -> Page:
        """The files from `position` on, without those that have no alias left."""
        found, note = await self._find(position)
        known = set(marks)
        new: list[StoredHash] = []
        for entry in found.hashes:
            if entry.hex.lower() in known:
                break
            new.append(entry)
        last = found.next is None or len(new) < len(found.hashes)
        passed = [slug_of(bytes.fromhex(entry.hex)) for entry in reversed(new)][:_WAYMARKS]
        return Page(
            objects=tuple(_stored(entry) for entry in new),
            position=() if last or found.next is None else (found.next, *passed),
            marks=() if position and not note else await self._newest(),
            last=last,
            note=note,
        )

    async def read(self, stored: StoredObject, into: Body) -> None:
        """Read the original through its first alias."""
        if not stored.aliases:
            raise ObjectGone("no alias leads to it any more")
        path = f"/image/original/{quote(stored.aliases[0], safe='')}"
        try:
            async with self._originals.stream("GET", path) as answer:
                if answer.status_code == HTTPStatus.NOT_FOUND:
                    raise ObjectGone("pict-rs does not have it any more")
                if not answer.is_success:
                    raise ObjectUnread(f"pict-rs answers {answer.status_code} to GET {path}")
                async for piece in answer.aiter_bytes():
                    into.write(piece)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ObjectUnread(f"no whole answer to GET {path} ({type(error).__name__})") from error
        into.finish()

    async def remove(self, stored: StoredObject) -> None:
        """Purge it by every alias, and wait until pict-rs has done so."""
        try:
            for alias in stored.aliases:
                await self._api.purge(alias)
            clock = asyncio.get_running_loop().time
            give_up_at = clock() + _GONE_WITHIN_S
            while await self._has(stored.key):
                if clock() > give_up_at:
                    raise ObjectUnread(f"pict-rs took the purge and still has it {_GONE_WITHIN_S:g} s later")
                await asyncio.sleep(_ASK_AGAIN_S)
        except (PictRsError, SourceAway, SourceRefused) as error:
            raise ObjectUnread(str(error)) from error

    async def move(self, stored: StoredObject, body: Body) -> str:
        """Raises `ObjectUnread`: nothing can be moved within a pict-rs. `open_source` takes no quarantine for one."""
        raise ObjectUnread("nothing can be moved within a pict-rs; --apply purges")

    async def _has(self, key: str) -> bool:
        found = await self._ask(slug_of(bytes.fromhex(key)), 1)
        return bool(found.hashes) and found.hashes[0].hex.lower() == key

    async def _find(self, position: tuple[str, ...]) -> tuple[HashPage, str]:
        """The page that begins at `position`, and a sentence where the place is lost and it begins anew."""
        for number, slug in enumerate(position):
            found = await self._ask(slug, self._page)
            # What is not there is answered with the newest page.
            if found.hashes and slug_of(bytes.fromhex(found.hashes[0].hex)) == slug:
                if number:  # one that was seen to already: what follows it is wanted
                    found = HashPage(hashes=found.hashes[1:], next=found.next)
                return found, ""
        note = "the files at which the sweep paused are gone from pict-rs: it begins at the newest again"
        return await self._ask(None, self._page), note if position else ""

    async def _newest(self) -> tuple[str, ...]:
        return tuple(entry.hex.lower() for entry in (await self._ask(None, _MARKS)).hashes)

    async def _ask(self, slug: str | None, limit: int) -> HashPage:
        async with _as_source_errors():
            return await self._api.page(slug, limit=limit)


@asynccontextmanager
async def _as_source_errors() -> AsyncIterator[None]:
    try:
        yield
    except PictRsRefused as error:
        raise SourceRefused(str(error)) from error
    except PictRsError as error:  # with the 500 of a pict-rs that is starting or ending
        raise SourceAway(str(error)) from error


def _stored(entry: StoredHash) -> StoredObject:
    path = entry.aliases[0] if entry.aliases else entry.hex.lower()
    return StoredObject(key=entry.hex.lower(), path=path, aliases=entry.aliases)
