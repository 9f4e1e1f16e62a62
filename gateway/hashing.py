"""The PDQ hash of an image on the web, as PieFed asks for it."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from gateway.bodies import Bodies
from gateway.fetch_settings import FetchSettings
from gateway.frames.frame import Frame, Unreadable
from gateway.frames.pool import FramePool, PoolStopped
from gateway.refusals import Refusal, RefusalCode
from gateway.replies import Reply
from schemas.fetching import Fetched, FetchFailed, FetchRefused, fetch


class Hashing:
    """Fetches, makes frames in the sandbox, gives the first one's hash. Nothing is kept."""

    def __init__(self, settings: FetchSettings, *, bodies: Bodies, frames: FramePool) -> None:
        self._settings = settings
        self._bodies = bodies
        self._frames = frames
        self._under_way = 0

    async def hash_url(self, url: str) -> Frame:
        """The first frame of the image at `url`. Raises `Refusal`: everything that may go wrong."""
        if not self._settings.enabled:
            raise Refusal(
                RefusalCode.FETCHING_OFF,
                "this gateway fetches nothing",
                remedy="set gateway.fetch.enabled, once you have read what docs/security.md says of it",
            )
        if self._under_way >= self._settings.at_a_time:
            raise Refusal(
                RefusalCode.TOO_MANY_FETCHES,
                "as many images are being fetched as may be at a time",
                remedy="try again in a moment; gateway.fetch.at_a_time is the bound",
            )
        self._under_way += 1
        try:
            async with fetch(url, self._settings.limits) as fetched:
                body = await self._bodies.read(_Receiver(fetched))
            with body:
                return (await self._frames.extract(body.fd, body.length)).frames[0]
        except FetchRefused as error:
            raise Refusal(
                RefusalCode.URL_NOT_ALLOWED, str(error), field="image_url", remedy="give a public http(s) address"
            ) from error
        except FetchFailed as error:
            raise Refusal(
                RefusalCode.URL_NOT_FETCHED, str(error), field="image_url", remedy="is it there, and public?"
            ) from error
        except Unreadable as error:
            raise Refusal(
                RefusalCode.NOT_AN_IMAGE,
                f"what the address gives cannot be read as an image ({error})",
                field="image_url",
                remedy="give the address of an image, not of a page that shows it",
            ) from error
        except PoolStopped as error:
            raise Refusal(RefusalCode.DRAINING, "this gateway is stopping", remedy="try again") from error
        finally:
            self._under_way -= 1


class _Receiver:
    """What is fetched, as a request's body is received: so that it is held, and bounded, as any body is."""

    def __init__(self, fetched: Fetched) -> None:
        self._content: AsyncIterator[bytes] = aiter(fetched.content)

    async def __call__(self) -> Mapping[str, Any]:
        piece = await anext(self._content, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}


def pdq_reply(frame: Frame) -> Reply:
    """The shape that PieFed reads: 256 binary digits, most significant first, and the quality (it uses 70 and more)."""
    bits = f"{int.from_bytes(frame.pdq):0256b}"
    return Reply(200, orjson.dumps({"pdq_hash_binary": bits, "quality": frame.pdq_quality}))
