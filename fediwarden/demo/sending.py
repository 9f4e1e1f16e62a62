"""The week goes out: images to the gateway, as pict-rs sends them; where they came from to the audit, by HTTP."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

import httpx

from federation_audit.intake import ORIGINS_MOST
from fediwarden.demo.pictures import draw
from fediwarden.demo.world import Post
from schemas.messages import AnsweredBy

_AT_ONCE: Final = 4
_TIMEOUT_S: Final = 60.0
_PATIENCE_S: Final = 60.0
_REST_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.3
_UNJUDGED: Final = frozenset({AnsweredBy.DEADLINE, AnsweredBy.OVERLOAD})


class SendingFailed(Exception):
    """A service of the demo refused what was sent; the message has its words."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A post's file: its hash, and what answered for it (a scan, a list, the deadline...)."""

    post: Post
    sha256: bytes
    answered_by: str
    accepted: bool


@dataclass(slots=True)
class Outbox:
    """Sends the week. `gateway` and `pages` are base addresses; `now` is the day that the week led up to."""

    gateway: str
    pages: str
    origins_token: str = field(repr=False)
    seed: int
    now: datetime
    sent: list[Sent] = field(default_factory=list)

    @property
    def answers(self) -> Counter[str]:
        """How many images were answered by what."""
        return Counter(each.answered_by for each in self.sent)

    async def send(self, posts: Sequence[Post], on_sent: Callable[[Sent], None]) -> None:
        """Send all of `posts`. Of every other parcel the origins come first, as they do in life.

        Raises `SendingFailed`.
        """
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
            parcels = list(_parcels(posts))
            drawing = asyncio.create_task(asyncio.to_thread(self._draw, parcels[0]))
            try:
                for number in range(len(parcels)):
                    files = await drawing
                    if number + 1 < len(parcels):  # while these are judged
                        drawing = asyncio.create_task(asyncio.to_thread(self._draw, parcels[number + 1]))
                    if number % 2:
                        await self._tell(client, files)
                    await self._post_all(client, files, on_sent)
                    if not number % 2:
                        await self._tell(client, files)
            finally:
                drawing.cancel()

    def redraw(self, posts: Sequence[Post]) -> dict[bytes, Post]:
        """`posts` by the sha256 of their files, without sending them."""
        return {hashlib.sha256(data).digest(): post for post, data, _ in self._draw(posts)}

    def _draw(self, posts: Sequence[Post]) -> list[tuple[Post, bytes, str]]:
        files = []
        for post in posts:
            picture = draw(post.motif, self.seed, post.copy)
            files.append((post, picture.data, picture.media_type))
        return files

    async def _post_all(
        self, client: httpx.AsyncClient, files: Sequence[tuple[Post, bytes, str]], on_sent: Callable[[Sent], None]
    ) -> None:
        left = iter(files)

        async def work() -> None:
            for post, data, media_type in left:
                answer = await self._ask(
                    client, f"{self.gateway}/api/v1/scan/IPADDR", content=data, headers={"content-type": media_type}
                )
                sent = Sent(post, hashlib.sha256(data).digest(), answer["answered_by"], answer["accepted"])
                if sent.answered_by in _UNJUDGED:
                    await self._await_verdict(client, answer["scan_id"])
                self.sent.append(sent)
                on_sent(sent)

        workers = [asyncio.create_task(work()) for _ in range(_AT_ONCE)]
        try:
            await asyncio.gather(*workers)
        finally:  # the first that fails ends them all
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _await_verdict(self, client: httpx.AsyncClient, scan_id: str) -> None:
        """Wait for a verdict that came too late for its answer: who goes on at once makes the next late, too."""
        give_up_at = asyncio.get_running_loop().time() + _PATIENCE_S
        while asyncio.get_running_loop().time() < give_up_at:
            response = await client.get(f"{self.gateway}/v1/scans/{scan_id}")
            if response.status_code != HTTPStatus.OK or response.json()["verdict"] is not None:
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _tell(self, client: httpx.AsyncClient, files: Sequence[tuple[Post, bytes, str]]) -> None:
        origins = [self._origin(post, hashlib.sha256(data).hexdigest()) for post, data, _ in files if post.instance]
        if origins:
            await self._ask(
                client,
                f"{self.pages}/v1/origins",
                json={"origins": origins},
                headers={"authorization": f"Bearer {self.origins_token}"},
            )

    def _origin(self, post: Post, sha256: str) -> dict[str, Any]:
        return {
            "sha256": sha256,
            "url": post.image_url,
            "place": "post-link",
            "author": {"id": post.actor_id, "confidence": "certain"},
            "community": {"id": post.community, "confidence": "certain"},
            "post_url": post.post_url,
            "published_at": post.posted_at(self.now).isoformat(),
        }

    async def _ask(self, client: httpx.AsyncClient, url: str, **request: Any) -> dict[str, Any]:
        """POST; again for a while where the service is busy or not there."""
        give_up_at = asyncio.get_running_loop().time() + _PATIENCE_S
        while True:
            try:
                response = await client.post(url, **request)
                if response.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                    break
                said = response.text
            except httpx.TransportError as error:
                said = str(error) or type(error).__name__
            if asyncio.get_running_loop().time() > give_up_at:
                raise SendingFailed(f"{url} takes nothing: {said[:300]}")
            await asyncio.sleep(_REST_S)
        if response.status_code in (HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NOT_ACCEPTABLE):
            answer: dict[str, Any] = response.json()
            return answer
        raise SendingFailed(f"{url} answered {response.status_code}: {response.text[:300]}")


def _parcels(posts: Sequence[Post]) -> Iterator[Sequence[Post]]:
    for first in range(0, len(posts), ORIGINS_MOST):
        yield posts[first : first + ORIGINS_MOST]
