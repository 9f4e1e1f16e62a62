"""From sealed frames to what the models take, in a few threads."""

import asyncio
import io
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from scanner.failures import FailureReason, ImageUnjudgeable, ModelGone
from scanner.hanging import comes_back
from scanner.models.model import Model, ModelHung
from scanner.scoring import PreparedFrame
from schemas.keyring import FramesUndecryptable, Keyring
from schemas.messages import ImageSubmitted

MAX_SIDE = 2048
"""Pixels. Our gateway sends at most 512; more than this is no frame of ours and is not decoded."""


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image's frames, prepared for every model. `milliseconds` is what that took in its thread."""

    frames: tuple[PreparedFrame, ...]
    milliseconds: float


THREAD_NAME = "decode"


class Decoder:
    """Decrypts, decodes and prepares, `threads` images at a time (Pillow releases the GIL where it matters).

    An image that keeps its thread for longer than `hang_s` seconds is given up, and with it this object: the thread is
    lost. The others that have a thread may end; those that wait for one are nobody's suspects.
    """

    def __init__(self, keyring: Keyring, models: Sequence[Model], *, threads: int, hang_s: float = math.inf) -> None:
        self._keyring = keyring
        self._hang_s = hang_s
        self._models = tuple(models)
        self._gone = False
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=THREAD_NAME)

    async def decode(self, message: ImageSubmitted) -> PreparedImage:
        """Return the image's prepared frames.

        Raises `ImageUnjudgeable`; `ModelHung` when it has had a thread for `hang_s` seconds; `ModelGone` when another
        had before it was this one's turn.
        """
        if self._gone:
            raise ModelGone
        begun = threading.Event()
        decoding = asyncio.get_running_loop().run_in_executor(self._pool, self._decode, message, begun)
        if not await comes_back(decoding, within_s=self._hang_s, has_begun=begun.is_set):
            self._gone = True
            self._pool.shutdown(wait=False, cancel_futures=True)
            raise ModelHung(f"an image has not been decoded and prepared for {self._hang_s:g} s (scanner.hang_s)")
        if decoding.cancelled():
            raise ModelGone
        return decoding.result()

    def close(self) -> None:
        """Let the threads end once their present image is done."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, message: ImageSubmitted, begun: threading.Event) -> PreparedImage:
        begun.set()
        started = time.perf_counter()
        try:
            jpegs = self._keyring.open(message.sealed, sha256=message.sha256, tenant=message.tenant)
        except FramesUndecryptable as error:
            raise ImageUnjudgeable(FailureReason.UNDECRYPTABLE, str(error)) from error
        if len(jpegs) != len(message.frames):
            raise ImageUnjudgeable(
                FailureReason.FRAMES_INVALID, f"{len(jpegs)} frames came where {len(message.frames)} were announced"
            )
        frames = tuple(prepare_frame(jpeg, index, self._models) for index, jpeg in enumerate(jpegs))
        return PreparedImage(frames, (time.perf_counter() - started) * 1000.0)


def prepare_frame(jpeg: bytes, index: int, models: Sequence[Model]) -> PreparedFrame:
    """Decode a frame and prepare it for each model. Raises `ImageUnjudgeable`, which names the frame by `index`."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
            if max(picture.size) > MAX_SIDE:
                raise ImageUnjudgeable(
                    FailureReason.FRAMES_INVALID, f"frame {index} is {picture.width} x {picture.height} pixels"
                )
            image = picture if picture.mode == "RGB" else picture.convert("RGB")
            image.load()
            return tuple(model.prepare(image) for model in models)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageUnjudgeable(FailureReason.FRAMES_INVALID, f"frame {index}: {error}") from error
