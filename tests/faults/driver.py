"""The fault tests' client: a steady stream of images, and its own record of what it sent and what it was told.

Every image is another one; the driver knows which of them must be rejected because it painted them. What the system
under test says about itself is in the record only where a client sees it: statuses and headers.
"""

import asyncio
import contextlib
import hashlib
import io
import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import httpx
from PIL import Image, ImageDraw

from tests.faults.background import Background

RATE = 20.0
SIDE = 128
GIVE_UP_S = 20.0
STEADY_S = 3.0
_IN_HAND_S = 1.0
_STORED = 201
_REJECTED_BY_PICT_RS = 400
_ERROR = 500


class Kind(StrEnum):
    """What an image shows, by the colour that tests.faults.scanner goes by."""

    CLEAN = "clean"
    BAD = "bad"
    """To be rejected."""
    POISON = "poison"
    """The model raises on it: it ends in images.dead."""


_COLOURS = {Kind.CLEAN: (40, 170, 60), Kind.BAD: (215, 40, 40), Kind.POISON: (40, 40, 215)}


class Way(StrEnum):
    """How an image goes in."""

    UPLOAD = "upload"
    """To pict-rs, which asks a gateway and keeps the image or does not."""
    DIRECT = "direct"
    """To a gateway, as pict-rs would."""


@dataclass(slots=True)
class Request:
    """One image that was sent, and the client's side of what came of it.

    `status` is 0 while there is no answer; `fault` says why there will be none. `answered_by` and `scan_id` are the
    gateway's headers, "" where it gave none: uploads, errors. `took_s` runs from the first byte to the whole answer.
    """

    sha256: bytes
    kind: Kind
    way: Way
    sent_at: float
    status: int = 0
    answered_by: str = ""
    scan_id: str = ""
    took_s: float = 0.0
    fault: str = ""

    @property
    def open(self) -> bool:
        """Whether the client still waits."""
        return not self.status and not self.fault

    @property
    def stored(self) -> bool:
        """Whether pict-rs said that it keeps the image."""
        return self.way is Way.UPLOAD and self.status == _STORED

    @property
    def answered(self) -> bool:
        """Whether a gateway surely answered, and not with an error."""
        return self.stored or bool(self.answered_by)

    @property
    def failed(self) -> bool:
        """Whether a client would call it failed: no answer, an error, or a good image that pict-rs does not keep."""
        kept = self.way is Way.DIRECT or self.stored or self.kind is not Kind.CLEAN
        return bool(self.fault) or self.status >= _ERROR or not kept

    @property
    def judged(self) -> bool:
        """Whether the client was told what a judged image of its kind is told."""
        if self.way is Way.DIRECT:
            return self.answered_by == ("unreadable" if self.kind is Kind.POISON else "verdict")
        return self.status == (_STORED if self.kind is Kind.CLEAN else _REJECTED_BY_PICT_RS)


@dataclass(slots=True)
class Driver:
    """Sends `rate` images a second, in turn to pict-rs and to the gateways, whatever becomes of those before.

    `numbers` makes pictures differ between drivers of one run; `rich` ones have ten times the bytes. Start and stop it
    on the main thread.
    """

    background: Background
    gateways: str
    pict_rs: str
    numbers: Iterator[int]
    rate: float = RATE
    bad_share: float = 0.1
    poison_share: float = 0.0
    rich: bool = False
    requests: list[Request] = field(default_factory=list)
    _sending: asyncio.Task[None] | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self) -> None:
        """Begin to send."""
        self.background.call(self._start())

    def stop(self) -> list[Request]:
        """Stop sending, wait for what is in hand, and give the record."""
        self.background.call(self._stop())
        return self.requests

    def steady_from(self, since: float) -> float | None:
        """When (time.time) the latest unbroken run of judged answers began, once it has lasted `STEADY_S`."""
        after = [request for request in self.requests if request.sent_at >= since]
        now = time.time()
        settled = [each for each in after if not each.open or now - each.sent_at > _IN_HAND_S]
        run = list(itertools.takewhile(lambda request: request.judged, reversed(settled)))
        if not run or run[0].sent_at - run[-1].sent_at < STEADY_S:
            return None
        return run[-1].sent_at

    async def _start(self) -> None:
        self._sending = asyncio.create_task(self._send(), name="driver")

    async def _stop(self) -> None:
        assert self._sending is not None, "start() comes first"
        self._stopping.set()
        await self._sending

    async def _send(self) -> None:
        # A new connection for each request, as after a pause: so the proxy may choose a gateway each time.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        loop = asyncio.get_running_loop()
        async with httpx.AsyncClient(limits=limits, timeout=GIVE_UP_S) as client, asyncio.TaskGroup() as posts:
            for place, due in enumerate(itertools.count(loop.time(), 1 / self.rate)):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._stopping.wait()
                if self._stopping.is_set():
                    return
                posts.create_task(self._one(client, tuple(Way)[place % len(Way)]))

    async def _one(self, client: httpx.AsyncClient, way: Way) -> None:
        number = next(self.numbers)
        dice = random.Random(number)
        weights = (1 - self.bad_share - self.poison_share, self.bad_share, self.poison_share)
        (kind,) = dice.choices(tuple(Kind), weights)
        picture = paint(kind, number, rich=self.rich)
        request = Request(hashlib.sha256(picture).digest(), kind, way, sent_at=time.time())
        self.requests.append(request)
        started = time.perf_counter()
        try:
            response = await (self._upload if way is Way.UPLOAD else self._post)(client, picture)
        except httpx.HTTPError as error:
            request.fault = repr(error)
        else:
            request.status = response.status_code
            request.answered_by = response.headers.get("x-fediwarden-answered-by", "")
            request.scan_id = response.headers.get("x-fediwarden-scan-id", "")
        request.took_s = time.perf_counter() - started

    async def _upload(self, client: httpx.AsyncClient, picture: bytes) -> httpx.Response:
        return await client.post(f"{self.pict_rs}/image", files={"images[]": ("a.jpg", picture, "image/jpeg")})

    async def _post(self, client: httpx.AsyncClient, picture: bytes) -> httpx.Response:
        async def chunks():  # no length, as from pict-rs
            yield picture

        return await client.post(
            f"{self.gateways}/api/v1/scan/IPADDR", content=chunks(), headers={"content-type": "image/jpeg"}
        )


def paint(kind: Kind, number: int, *, rich: bool = False) -> bytes:
    """A small JPEG of `kind`; no two numbers give the same bytes. A `rich` one is full of detail."""
    dice = random.Random(number)
    image = Image.new("RGB", (SIDE, SIDE), _COLOURS[kind])
    if rich:
        noise = Image.frombytes("RGB", image.size, dice.randbytes(3 * SIDE * SIDE))
        image = Image.blend(image, noise, 0.3)
    draw = ImageDraw.Draw(image)
    for bit in range(32):  # the number itself, as a row of marks: whatever the dice do, no other picture has it
        if number >> bit & 1:
            draw.rectangle((bit * 4, 0, bit * 4 + 3, 7), fill=(0, 0, 0))
    for _ in range(3):
        x, y = dice.randrange(SIDE), dice.randrange(16, SIDE)
        draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=tuple(dice.randrange(90) for _ in range(3)))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
