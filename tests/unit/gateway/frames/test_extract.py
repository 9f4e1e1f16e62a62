"""What extraction makes of each kind of file, in this process: types, sizes, colours, times, reasons."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from gateway.frames.containers import jxl_header
from gateway.frames.extract import extract
from gateway.frames.frame import FrameSet, Unreadable, UnreadableReason
from gateway.frames.pdq import pdq
from gateway.frames.renditions import BACKDROP
from gateway.frames.settings import FrameSettings
from gateway.frames.sniff import sniff
from tests import pictures, videos
from tests.pictures import BLUE, GREEN, RED, Colour

SETTINGS = FrameSettings(workers=1)
RED_SCENE, BLUE_SCENE = (230, 20, 20), (20, 20, 230)
GREY_KINDS = {"jpeg-gray", "png-gray", "png-gray-alpha", "png-gray-16bit"}


def pixel(found: FrameSet, index: int, across: float, down: float) -> Colour:
    image = Image.open(io.BytesIO(found.frames[index].jpeg))
    value = image.getpixel((int(image.width * across), int(image.height * down)))
    assert isinstance(value, tuple)
    return (int(value[0]), int(value[1]), int(value[2]))


def near(one: Colour, other: Colour, tolerance: int = 45) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= tolerance


def dominant(found: FrameSet, index: int) -> Colour:
    image = Image.open(io.BytesIO(found.frames[index].jpeg)).convert("RGB")
    median = np.median(np.asarray(image).reshape(-1, 3), axis=0)
    return (int(median[0]), int(median[1]), int(median[2]))


def red_frame() -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.full((48, 64, 3), RED, dtype=np.uint8), "rgb24")


def refused(data: bytes, settings: FrameSettings = SETTINGS) -> Unreadable:
    with pytest.raises(Unreadable) as raised:
        extract(data, settings)
    return raised.value


@pytest.mark.parametrize(("kind", "media_type"), pictures.KINDS)
def test_each_kind_is_taken_for_what_it_is_and_keeps_its_picture(kind: str, media_type: str) -> None:
    found = extract(pictures.make(kind), SETTINGS)
    assert found.media_type == media_type == sniff(pictures.make(kind))
    rotated = kind in ("jpeg-exif-rotated", "mp4-h264-rotated", "webm-vp9-rotated")
    assert (found.width < found.height) == rotated
    for frame in found.frames:
        image = Image.open(io.BytesIO(frame.jpeg))
        assert image.format == "JPEG"
        assert image.size == (frame.width, frame.height)
        assert max(image.size) <= 512
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert b"SecretCameraMaker" not in frame.jpeg
    seen = [dominant(found, index) for index in range(len(found.frames))]
    shown = seen[0]
    if kind == "jpeg-icc":
        assert near(shown, (RED[2], RED[1], RED[0])), "the profile swaps red and blue for every viewer"
    elif kind == "png-1bit":
        assert max(shown) - min(shown) <= 2
    elif kind in GREY_KINDS and "alpha" not in kind:
        assert near(shown, (88, 88, 88), 20)
    elif "alpha" not in kind and kind not in ("png-rgba", "png-palette-transparent"):
        assert any(near(shown, RED) for shown in seen), seen


@pytest.mark.parametrize(
    "kind",
    [
        "png-rgba",
        "png-palette-transparent",
        "png-gray-alpha",
        "webp-alpha",
        "avif-alpha",
        "webm-vp8-alpha",
        "webm-vp9-alpha",
    ],
)
def test_transparent_parts_show_the_neutral_backdrop(kind: str) -> None:
    found = extract(pictures.make(kind), SETTINGS)
    assert near(pixel(found, 0, 0.9, 0.9), BACKDROP, 6)
    assert not near(pixel(found, 0, 0.1, 0.1), BACKDROP, 6)


@pytest.mark.parametrize("kind", ["jpeg-exif-rotated", "mp4-h264-rotated", "webm-vp9-rotated"])
def test_a_picture_is_turned_as_viewers_turn_it(kind: str) -> None:
    """The scene is light at the top; a quarter turn clockwise brings its top to the right."""
    found = extract(pictures.make(kind), SETTINGS)
    image = np.asarray(Image.open(io.BytesIO(found.frames[0].jpeg)).convert("L"), dtype=float)
    assert image[:, -20:].mean() > image[:, :20].mean() + 15


@pytest.mark.parametrize("kind", pictures.ANIMATED)
def test_frame_durations_count_not_frame_numbers(kind: str) -> None:
    """Twenty quick frames and one that stays: most samples fall on the one that stays."""
    colours = [RED if index % 2 else GREEN for index in range(20)] + [BLUE]
    found = extract(pictures.animation(kind, colours, [20] * 20 + [4000]), SETTINGS)
    assert found.duration_ms == 4400
    assert len(found.frames) <= 8
    assert [frame.at_ms for frame in found.frames] == sorted({frame.at_ms for frame in found.frames})
    assert near(dominant(found, len(found.frames) - 1), BLUE)
    assert found.frames[-1].at_ms == 400


@pytest.mark.parametrize("kind", pictures.ANIMATED)
def test_two_scattered_frames_in_ten_are_seen(kind: str) -> None:
    """Frames 3 and 6 of ten lie between the even steps of time; the picture they share is seen all the same."""
    colours: list[Colour] = [(0, 20 * index + 40, 120) for index in range(10)]
    colours[3] = colours[6] = (230, 20, 20)
    found = extract(pictures.animation(kind, colours, [100] * 10), SETTINGS)
    assert any(near(dominant(found, index), (230, 20, 20)) for index in range(len(found.frames)))


@pytest.mark.parametrize(("codec", "container"), [("libx264", "mp4"), ("libvpx-vp9", "webm"), ("libsvtav1", "mp4")])
@pytest.mark.parametrize("gop", [12, 300])
def test_a_long_video_is_sampled_from_its_start_to_its_end(codec: str, container: str, gop: int) -> None:
    colours: list[Colour] = [(index * 255 // 149, 120, 255 - index * 255 // 149) for index in range(150)]
    found = extract(videos.solid(colours, codec=codec, container=container, fps=30, gop=gop), SETTINGS)
    assert len(found.frames) == 8
    assert found.frames[0].at_ms <= found.duration_ms / 8
    assert found.frames[-1].at_ms >= found.duration_ms * 7 / 8 - 34
    for index, frame in enumerate(found.frames):
        assert near(dominant(found, index), colours[round(frame.at_ms * 30 / 1000)], 20)


def test_a_short_video_is_gone_through_frame_by_frame() -> None:
    colours: list[Colour] = [(0, 20 * index + 40, 120) for index in range(10)]
    colours[3] = colours[6] = (230, 20, 20)
    found = extract(videos.solid(colours, codec="libx264", container="mp4", fps=2), SETTINGS)
    assert any(near(dominant(found, index), (230, 20, 20)) for index in range(len(found.frames)))


def scattered(pattern: str) -> list[Colour]:
    """900 frames, 180 of them red: frames 3 and 6 of every ten, or anywhere."""
    if pattern == "periodic":
        return [RED_SCENE if index % 10 in (3, 6) else BLUE_SCENE for index in range(900)]
    red = set(np.random.default_rng(int(pattern)).choice(900, 180, replace=False).tolist())
    return [RED_SCENE if index in red else BLUE_SCENE for index in range(900)]


def reds(found: FrameSet) -> int:
    return sum(near(dominant(found, index), RED_SCENE) for index in range(len(found.frames)))


@pytest.mark.parametrize(("codec", "container"), [("libx264", "mp4"), ("libvpx-vp9", "webm"), ("libsvtav1", "mp4")])
@pytest.mark.parametrize("pattern", ["periodic", "1", "2", "3"])
def test_two_scattered_frames_in_ten_of_a_video_of_900_are_seen(codec: str, container: str, pattern: str) -> None:
    found = extract(videos.solid(scattered(pattern), codec=codec, container=container, fps=30, gop=250), SETTINGS)
    assert len(found.frames) <= 8
    assert reds(found) >= 1


@pytest.mark.parametrize("gop", [12, 250])
@pytest.mark.parametrize("pattern", ["periodic", "1", "2", "3"])
def test_they_are_seen_in_a_video_too_large_to_decode_every_frame(
    pattern: str, gop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures are small, and so is what may be decoded in full."""
    monkeypatch.setattr("gateway.frames.video._FULL_COST", 100 * 64 * 48)
    found = extract(videos.solid(scattered(pattern), codec="libx264", container="mp4", fps=30, gop=gop), SETTINGS)
    assert len(found.frames) <= 8
    assert reds(found) >= 1
    assert found.frames[-1].at_ms > 0.8 * found.duration_ms


def test_a_video_too_large_to_decode_every_frame_is_sampled_over_all_its_time() -> None:
    found = extract(videos.too_large(), SETTINGS)
    assert len(found.frames) == 8
    shown = [round(frame.at_ms * 30 / 1000) // 50 for frame in found.frames]
    assert len(set(shown)) == 8
    assert {0, 1, 2} & set(shown)
    assert {9, 10, 11} & set(shown)
    for index, scene in enumerate(shown):
        assert near(dominant(found, index), videos.SCENES[scene], 12)


@pytest.mark.parametrize("full_cost", [0, 600_000_000], ids=["sampled", "every frame"])
def test_at_most_eight_frames_are_given_and_a_flash_of_one_of_900_may_be_missed(
    full_cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented limit: with eight scenes to show, one frame of a ninth has no place."""
    monkeypatch.setattr("gateway.frames.video._FULL_COST", full_cost)
    colours: list[Colour] = [(0, 30 * (index * 8 // 900), 200) for index in range(900)]
    colours[333] = RED_SCENE
    found = extract(videos.solid(colours, codec="libx264", container="mp4", fps=30, gop=250), SETTINGS)
    assert len(found.frames) == 8
    assert reds(found) == 0


@pytest.mark.parametrize("kind", pictures.BAD_KINDS)
def test_each_bad_kind_is_refused_for_its_reason(kind: str) -> None:
    reason = refused(pictures.make(kind)).reason
    if kind.startswith("truncated-jxl"):
        assert reason is UnreadableReason.DAMAGED
    elif kind.startswith("truncated-"):
        assert reason is UnreadableReason.TRUNCATED
    else:
        expected = {
            "empty": UnreadableReason.EMPTY,
            "svg": UnreadableReason.UNSUPPORTED,
            "tiff": UnreadableReason.UNSUPPORTED,
            "bmp": UnreadableReason.UNSUPPORTED,
            "png-bomb": UnreadableReason.TOO_LARGE,
            "png-13300": UnreadableReason.TOO_LARGE,
        }
        assert reason is expected.get(kind, UnreadableReason.NOT_AN_IMAGE)


@pytest.mark.parametrize(
    "kind", ["jpeg", "png", "apng", "webp", "webp-animated", "gif-animated", "avif", "jxl", "mp4-h264", "webm-vp9"]
)
def test_a_picture_over_the_limit_is_refused_by_its_header(kind: str) -> None:
    small = FrameSettings(workers=1, max_pixels=10_000)
    assert refused(pictures.make(kind), small).reason is UnreadableReason.TOO_LARGE
    assert refused(pictures.make(kind), FrameSettings(workers=1, max_side=100)).reason is UnreadableReason.TOO_LARGE


def test_a_jpeg_xl_header_gives_its_size_and_no_animation() -> None:
    header = jxl_header(pictures.make("jxl"))
    assert (header.width, header.height, header.animated) == (640, 480, False)


def test_an_animated_jpeg_xl_is_refused_rather_than_judged_by_its_first_frame() -> None:
    # The header alone, as cjxl 0.7 writes it for a 320 x 240 animation of five frames.
    animated = bytes.fromhex("ff0afb040348282e090012904c5000e8c1ced4d3") + bytes(64)
    assert jxl_header(animated).animated
    assert refused(animated).reason is UnreadableReason.UNSUPPORTED


def test_a_video_with_sound_is_read_for_its_pictures() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as writer:
        video = writer.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = writer.add_stream("aac", rate=44_100)
        for index in range(10):
            picture = red_frame()
            writer.mux(video.encode(picture))
            tone = av.AudioFrame.from_ndarray(np.zeros((2, 1024), dtype=np.float32), "fltp", "stereo")
            tone.sample_rate, tone.pts, tone.time_base = 44_100, 1024 * index, Fraction(1, 44_100)
            writer.mux(sound.encode(tone))
        writer.mux(video.encode(None))
        writer.mux(sound.encode(None))
    found = extract(out.getvalue(), SETTINGS)
    assert found.media_type == "video/mp4"
    assert near(dominant(found, 0), RED)


def test_a_codec_outside_the_list_is_refused_without_being_decoded() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as writer:
        stream = writer.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            writer.mux(stream.encode(red_frame()))
        writer.mux(stream.encode(None))
    assert refused(out.getvalue()).reason in (UnreadableReason.UNSUPPORTED, UnreadableReason.DAMAGED)


def test_an_animation_that_cannot_be_looked_through_in_time_is_refused() -> None:
    hurried = FrameSettings(workers=1, wall_s=0.02)
    assert refused(pictures.long_gif(20_000, 128), hurried).reason is UnreadableReason.TOO_SLOW


def test_a_video_with_illegible_metadata_is_read_all_the_same() -> None:
    video = pictures.make("mp4-h264")
    assert b"VideoHandler" in video
    assert extract(video.replace(b"VideoHandler", b"\xf5ideoHandl\xfer"), SETTINGS).media_type == "video/mp4"


@pytest.mark.parametrize("frames", [20, 150])
def test_a_video_that_is_mostly_illegible_is_not_judged_by_its_beginning(frames: int) -> None:
    colours: list[Colour] = [(index % 256, 120, 80) for index in range(frames)]
    video = bytearray(videos.solid(colours, codec="libx264", container="mp4", gop=5))
    begin = video.index(b"mdat") + 4
    end = video.index(b"moov") - 4
    video[begin + (end - begin) // 3 : end] = bytes(end - begin - (end - begin) // 3)
    unreadable = refused(bytes(video))
    assert unreadable.reason is UnreadableReason.DAMAGED
    assert "frames can be decoded" in unreadable.detail


def test_quality_steps_down_until_the_frames_fit() -> None:
    rng = np.random.default_rng(1)
    noise = [Image.fromarray(rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)) for _ in range(8)]
    out = io.BytesIO()
    noise[0].save(out, "WEBP", save_all=True, append_images=noise[1:], duration=100, lossless=True, method=0)
    for limit in (900_000, 300_000, 50_000):
        found = extract(out.getvalue(), FrameSettings(workers=1, max_bytes=limit))
        assert len(found.frames) == 8
        assert sum(len(frame.jpeg) for frame in found.frames) <= limit


def test_a_small_picture_is_never_enlarged() -> None:
    out = io.BytesIO()
    Image.new("RGB", (3, 7), RED).save(out, "PNG")
    frame = extract(out.getvalue(), SETTINGS).frames[0]
    assert (frame.width, frame.height, frame.pdq_quality) == (3, 7, 0)


def test_the_original_jpegs_comment_does_not_travel() -> None:
    out = io.BytesIO()
    pictures.scene(1).save(out, "JPEG", comment=b"made by me, at home")
    assert b"at home" in out.getvalue()
    assert b"at home" not in extract(out.getvalue(), SETTINGS).frames[0].jpeg


def test_pdq_of_a_frame_is_near_that_of_the_whole_picture() -> None:
    for seed in range(2):
        original = pictures.photo(seed, 1632, 1224)
        whole = pdq(Image.open(io.BytesIO(original)).convert("RGB")).pdq
        frame = extract(original, SETTINGS).frames[0]
        differing = (int.from_bytes(frame.pdq) ^ int.from_bytes(whole)).bit_count()
        assert differing <= 20, "31 is the distance up to which pictures match"
