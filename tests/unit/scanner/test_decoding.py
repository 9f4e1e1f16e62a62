"""Decoding: sealed JPEGs in, prepared frames out, and one word for each way that can fail."""

import asyncio
import io
import threading
import time

import pytest
from PIL import Image

from scanner.decoding import Decoder, PreparedImage
from scanner.failures import FailureReason, ImageUnjudgeable, ModelGone
from scanner.models.model import ModelHung, Prepared
from schemas.keyring import Keyring
from schemas.messages import FrameInfo, ImageSubmitted
from tests.unit.scanner.stub_models import RedModel, is_green

KEYRING = Keyring.generate()
SHA256 = bytes(32)


def jpeg(colour: tuple[int, int, int] = (200, 10, 10), size: tuple[int, int] = (64, 48), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


def submitted(*jpegs: bytes, announced: int | None = None, keyring: Keyring = KEYRING) -> ImageSubmitted:
    return ImageSubmitted(
        scan_id="s",
        tenant="default",
        sha256=SHA256,
        length=1,
        media_type="image/jpeg",
        received_at=0,
        deadline_at=0,
        frames=(FrameInfo(at_ms=0, width=64, height=48, pdq=bytes(32), pdq_quality=100),) * (announced or len(jpegs)),
        sealed=keyring.seal(jpegs, sha256=SHA256, tenant="default"),
    )


def decode(message: ImageSubmitted) -> PreparedImage:
    decoder = Decoder(KEYRING, [RedModel(), RedModel()], threads=1)
    try:
        return asyncio.run(decoder.decode(message))
    finally:
        decoder.close()


def test_every_frame_is_prepared_for_every_model_in_order() -> None:
    image = decode(submitted(jpeg((250, 0, 0)), jpeg((0, 0, 250))))
    reds = [[round(float(prepared[0])) for prepared in frame] for frame in image.frames]
    assert reds[0][0] == reds[0][1] > 200
    assert reds[1][0] == reds[1][1] < 50
    assert image.milliseconds > 0


def test_a_grey_jpeg_is_prepared_as_rgb() -> None:
    assert decode(submitted(jpeg(mode="L"))).frames[0][0].shape == (3,)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (submitted(jpeg(), keyring=Keyring.generate()), FailureReason.UNDECRYPTABLE),
        (submitted(jpeg()).model_copy(update={"tenant": "other"}), FailureReason.UNDECRYPTABLE),
        (submitted(b"not a jpeg"), FailureReason.FRAMES_INVALID),
        (submitted(b""), FailureReason.FRAMES_INVALID),
        (submitted(png()), FailureReason.FRAMES_INVALID),
        (submitted(jpeg(), jpeg(size=(512, 512))[:300]), FailureReason.FRAMES_INVALID),
        (submitted(jpeg(size=(2049, 8))), FailureReason.FRAMES_INVALID),
        (submitted(jpeg(), announced=2), FailureReason.FRAMES_INVALID),
    ],
    ids=["key", "tenant", "garbage", "empty", "png", "truncated", "large", "count"],
)
def test_what_does_not_decrypt_or_decode_is_named_by_its_reason(message: ImageSubmitted, reason: FailureReason) -> None:
    with pytest.raises(ImageUnjudgeable) as caught:
        decode(message)
    assert caught.value.reason is reason


class Blocking(RedModel):
    """Prepares no green picture before it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()

    def prepare(self, image: Image.Image) -> Prepared:
        if is_green(image.getpixel((0, 0))):
            self.may_go_on.wait()
        return super().prepare(image)


def test_only_an_image_that_keeps_its_thread_is_suspected_and_not_those_that_wait_for_one() -> None:
    model = Blocking()

    async def scenario() -> list[object]:
        decoder = Decoder(KEYRING, [model], threads=2, hang_s=0.5)
        try:
            images = [submitted(jpeg(colour)) for colour in ((0, 255, 0), (0, 255, 0), (9, 9, 9), (9, 9, 9))]
            outcomes: list[object] = list(
                await asyncio.gather(*(decoder.decode(image) for image in images), return_exceptions=True)
            )
            with pytest.raises(ModelGone):
                await decoder.decode(images[2])
            return outcomes
        finally:
            model.may_go_on.set()
            decoder.close()

    assert [type(outcome) for outcome in asyncio.run(scenario())] == [ModelHung, ModelHung, ModelGone, ModelGone]


def test_the_wait_for_a_thread_is_no_hang() -> None:
    class Slow(RedModel):
        def prepare(self, image: Image.Image) -> Prepared:
            time.sleep(0.4)
            return super().prepare(image)

    async def scenario() -> list[PreparedImage]:
        decoder = Decoder(KEYRING, [Slow()], threads=1, hang_s=2.0)
        try:
            return list(await asyncio.gather(*(decoder.decode(submitted(jpeg())) for _ in range(8))))
        finally:
            decoder.close()

    assert len(asyncio.run(scenario())) == 8
