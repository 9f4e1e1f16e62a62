"""Short videos made with PyAV's own encoders, for the tests."""

import functools
import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import av
import numpy as np
from PIL import Image

SCENES = [(index * 22, 120, 255 - index * 22) for index in range(12)]
"""The colours of `too_large`, 50 frames each at 30 a second."""

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder's banner off, its errors on


def encode(
    pictures: Sequence[Image.Image],
    *,
    codec: str,
    container: str,
    fps: int = 10,
    rotation: int = 0,
    alpha: bool = False,
    gop: int = 12,
    options: dict[str, str] | None = None,
) -> bytes:
    """One frame a picture at `fps`, as `container` (mp4 or webm).

    `rotation` is clockwise degrees in the track's display matrix, as a phone held upright writes it; with `alpha`
    the right half is wholly transparent (libvpx only).
    """
    speed = {
        "libx264": {"preset": "ultrafast", "crf": "18"},
        "libsvtav1": {"preset": "12", "crf": "30", "svtav1-params": "lp=1"},
    }.get(codec, {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "2M", "auto-alt-ref": "0"})
    out = io.BytesIO()
    width, height = pictures[0].size
    with _same_priority(), av.open(out, "w", format=container) as writer:
        stream = writer.add_stream(codec, rate=fps, options=speed | (options or {}))
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuva420p" if alpha else "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1  # libvpx's threads wait for each other in busy loops
        if rotation:
            stream.set_display_rotation(-rotation)
        for picture in pictures:
            if alpha:
                mask = Image.new("L", picture.size, 255)
                mask.paste(0, (width // 2, 0, width, height))
                picture = picture.convert("RGBA")
                picture.putalpha(mask)
                frame = av.VideoFrame.from_ndarray(np.asarray(picture), "rgba").reformat(format="yuva420p")
            else:
                frame = av.VideoFrame.from_ndarray(np.asarray(picture.convert("RGB")), "rgb24")
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode(None))
    return out.getvalue()


@contextmanager
def _same_priority() -> Iterator[None]:
    """As root, SVT-AV1 puts the thread that starts it under SCHED_FIFO at 99, before all others, and leaves it there.

    This process and all that it starts would keep Kafka, and whatever else a test waits for, from running.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def solid(
    colours: Sequence[tuple[int, int, int]], *, codec: str, container: str, fps: int = 10, gop: int = 12
) -> bytes:
    """A video of plain 64 x 48 frames, one a colour: to see which moments a sampler looked at."""
    pictures = [Image.new("RGB", (64, 48), colour) for colour in colours]
    return encode(pictures, codec=codec, container=container, fps=fps, gop=gop)


@functools.cache
def too_large() -> bytes:
    """An h264 mp4 of 600 frames of 1280 x 720 in 12 scenes: more pixels than are decoded in full."""
    pictures = [Image.new("RGB", (1280, 720), colour) for colour in SCENES]
    return encode([pictures[index // 50] for index in range(600)], codec="libx264", container="mp4", fps=30)


def heavy(size: int, *, seed: int = 0) -> bytes:
    """An h264 mp4 of noise, at least `size` bytes (up to a tenth more): 1280 x 720, 25 frames a second."""
    rng = np.random.default_rng(seed)
    noise = [Image.fromarray(rng.integers(0, 256, (720, 1280, 3), dtype=np.uint8), "RGB") for _ in range(4)]
    per_frame = len(encode(noise, codec="libx264", container="mp4", fps=25, options={"crf": "4"})) / 4
    count = math.ceil(size * 1.13 / per_frame)
    return encode(
        [noise[index % 4] for index in range(count)],
        codec="libx264",
        container="mp4",
        fps=25,
        gop=25,
        options={"crf": "4"},
    )
