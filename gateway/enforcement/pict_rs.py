"""pict-rs's internal API (0.5), as far as we need it: what is stored, the aliases of a file, and purging them.

pict-rs files an original under a hash of 39 bytes: its sha256, its length in 6 bytes (big-endian), and one byte for its
format. The urlsafe base64 of it, with padding, is the hash's slug.

Errors, all `PictRsError`::

    PictRsError
    ├── PictRsUnreachable   no connection, or no answer in time
    ├── PictRsRefused       the API key is not its own: an admin must act
    └── PictRsUnexpected    an answer that is none of pict-rs's good ones
"""

import asyncio
import base64
from http import HTTPStatus
from types import TracebackType
from typing import Self

import httpx
from pydantic import BaseModel, ValidationError

FORMAT_BYTES = {
    "image/apng": (0, 7),
    "image/avif": (4, 1),
    "image/gif": (2,),
    "image/jpeg": (5,),
    "image/jxl": (6,),
    "image/png": (7, 0),
    "image/webp": (8, 3),
    "video/mp4": (9,),
    "video/webm": (10,),
}
"""pict-rs's format bytes of a media type, the likelier first. The second is the animated (or still) sister format: avif
and webp share one media type for both, and what counts as an animated png is pict-rs's own to say."""

_EVERY_FORMAT = tuple(range(11))
_LENGTH_BYTES = 6
_CONNECT_WITHIN_S = 5.0
_HUNG_UP = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class PictRsError(Exception):
    """A pict-rs did not do what it was asked; the message names its address and what to look at."""


class PictRsUnreachable(PictRsError):
    """No connection, or no whole answer in time."""


class PictRsRefused(PictRsError):
    """It does not take our API key."""


class PictRsUnexpected(PictRsError):
    """It answered with something else than pict-rs 0.5 does when all is well."""


class StoredHash(BaseModel):
    """A file that pict-rs keeps: its hash in hexadecimal digits, and its aliases."""

    hex: str
    aliases: tuple[str, ...]


class HashPage(BaseModel):
    """Some files that pict-rs keeps, the newest first; `next` is the slug of the one that follows them."""

    hashes: tuple[StoredHash, ...]
    next: str | None = None


class _Hashes(BaseModel):
    page: HashPage


def hashes_of(sha256: bytes, length: int, media_type: str) -> tuple[bytes, ...]:
    """The hashes that pict-rs may have filed a file under, the likeliest first; for an unknown type one a format."""
    start = sha256 + length.to_bytes(_LENGTH_BYTES, "big")
    return tuple(start + bytes([number]) for number in FORMAT_BYTES.get(media_type, _EVERY_FORMAT))


def slug_of(pict_rs_hash: bytes) -> str:
    """The slug by which the internal API names a hash."""
    return base64.urlsafe_b64encode(pict_rs_hash).decode("ascii")


class PictRs:
    """One pict-rs, spoken to with its API key. Also an async context manager; every method raises `PictRsError`."""

    def __init__(self, address: str, api_key: str, *, answer_within_s: float) -> None:
        self.address = address.rstrip("/")
        self._answer_within_s = answer_within_s
        self._client = httpx.AsyncClient(
            base_url=self.address,
            headers={"X-Api-Token": api_key},
            timeout=httpx.Timeout(answer_within_s, connect=min(_CONNECT_WITHIN_S, answer_within_s)),
            follow_redirects=False,  # the key must not travel to another host
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()

    async def check(self) -> None:
        """Return when the internal API answers and takes our key."""
        await self.page(None, limit=1)

    async def find(self, sha256: bytes, length: int, media_type: str) -> tuple[str, ...]:
        """Every alias of the stored file with these bytes; () when there is none."""
        found: dict[str, None] = {}
        for wanted in hashes_of(sha256, length, media_type):
            for entry in (await self.page(slug_of(wanted), limit=1)).hashes:
                # A hash that is not there is answered with the newest page.
                if entry.hex.lower() == wanted.hex():
                    found |= dict.fromkeys(entry.aliases)
        return tuple(found)

    async def purge(self, alias: str) -> None:
        """Have the file behind `alias` removed, with all its aliases and variants; pict-rs does so a moment later."""
        await self._request("POST", "/internal/purge", {"alias": alias}, fine=(HTTPStatus.NOT_FOUND,))

    async def page(self, slug: str | None, *, limit: int) -> HashPage:
        """Up to `limit` files from the one with this slug on, or from the newest where there is none with it."""
        query = {"limit": str(limit)} if slug is None else {"slug": slug, "limit": str(limit)}
        answer = await self._request("GET", "/internal/hashes", query)
        try:
            return _Hashes.model_validate_json(answer.content).page
        except ValidationError as error:
            raise PictRsUnexpected(
                f"{self.address} does not list hashes as pict-rs 0.5 does; is this the address of a pict-rs?"
            ) from error

    async def _request(
        self, method: str, path: str, query: dict[str, str], *, fine: tuple[int, ...] = ()
    ) -> httpx.Response:
        try:
            # httpx's own time-outs begin anew with each byte that comes.
            async with asyncio.timeout(self._answer_within_s):
                answer = await self._ask(method, path, query)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise PictRsUnreachable(
                f"no answer from {self.address} ({type(error).__name__}{f': {error}' if str(error) else ''});"
                " is pict-rs running, and is this its address (tenants.NAME.pict_rs)?"
            ) from error
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise PictRsRefused(
                f"{self.address} answers {answer.status_code} to our API key:"
                " tenants.NAME.pict_rs_api_key must be what pict-rs has as PICTRS__SERVER__API_KEY"
            )
        if not answer.is_success and answer.status_code not in fine:
            raise PictRsUnexpected(f"{self.address} answers {answer.status_code} to {method} {path}; see its log")
        return answer

    async def _ask(self, method: str, path: str, query: dict[str, str]) -> httpx.Response:
        """Ask once more where the other side hung up: nothing here does more harm twice than once.

        A web server closes a connection that was idle for some seconds, and that may cross our next request on it.
        """
        try:
            return await self._client.request(method, path, params=query)
        except _HUNG_UP:
            return await self._client.request(method, path, params=query)
