"""What a veil takes away, and that it cannot be got back."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from federation_audit.viewing.veils import FrameUnreadable, Veil, veil
from tests.pictures import photo, scene

SIDE = 512


def as_jpeg(picture: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=95, **options)
    return out.getvalue()


def pixels(jpeg: bytes, *, side: int | None = None) -> NDArray[np.float64]:
    with Image.open(io.BytesIO(jpeg)) as picture:
        grey = picture.convert("L")
        return np.asarray(grey if side is None else grey.resize((side, side)), dtype=np.float64)


def pattern(period: int, seed: int = 0) -> bytes:
    """Random black and white squares of `period` pixels: nothing in it is coarser than that."""
    cells = np.random.default_rng(seed).integers(0, 2, (SIDE // period, SIDE // period)) * 255
    return as_jpeg(Image.fromarray(np.kron(cells, np.ones((period, period))).astype(np.uint8), "L").convert("RGB"))


def information(one: NDArray[np.float64], other: NDArray[np.float64], bins: int = 16) -> float:
    """Mutual information of two pictures' pixels, in bits, above what pixels in random order have by chance."""

    def bits(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        joint, _, _ = np.histogram2d(x.ravel(), y.ravel(), bins=bins)
        joint /= joint.sum()
        across, down = joint.sum(0), joint.sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = joint * np.log2(joint / np.outer(down, across))
        return float(np.nansum(parts))

    mixed = np.random.default_rng(1).permutation(other.ravel()).reshape(other.shape)
    return bits(one, other) - bits(one, mixed)


def test_two_different_fine_pictures_of_one_mean_look_the_same_under_the_strong_blur() -> None:
    one, other = (pixels(veil(pattern(4, seed), Veil.BLURRED)) for seed in (1, 2))
    assert abs(pixels(pattern(4, 1)) - pixels(pattern(4, 2))).mean() > 100
    assert abs(one - other).mean() < 10  # what chance leaves in the means of 28 squares
    assert one.std() < 12


def test_of_fine_detail_next_to_nothing_is_left_and_each_step_leaves_more() -> None:
    left = {
        how: information(pixels(pattern(8, 3), side=256), pixels(veil(pattern(8, 3), how), side=256)) for how in Veil
    }
    assert left[Veil.BLURRED] < 0.1
    assert left[Veil.BLURRED] < left[Veil.GREY] < left[Veil.PLAIN]
    assert left[Veil.PLAIN] > 0.8


def test_the_strong_blur_cannot_be_sharpened_away() -> None:
    sharp = pattern(8, 4)
    blurred = Image.open(io.BytesIO(veil(sharp, Veil.BLURRED)))
    best = 0.0
    for radius in (2, 5, 10, 20):
        sharpened = np.asarray(blurred.filter(ImageFilter.UnsharpMask(radius, 500, 0)), dtype=np.float64)
        best = max(best, information(pixels(sharp, side=256), sharpened))
    assert best < 0.1


def test_what_is_finer_than_two_points_has_next_to_no_power_left() -> None:
    def fine_share(shown: NDArray[np.float64]) -> float:
        window = np.hanning(256)[:, None] * np.hanning(256)
        power = abs(np.fft.fft2((shown - shown.mean()) * window)) ** 2
        waves = abs(np.fft.fftfreq(256, 1 / 256))
        coarse = (waves[:, None] <= 15) & (waves <= 15)
        return float(power[~coarse].sum() / power.sum())

    assert fine_share(pixels(photo(5), side=256)) > 0.02
    assert fine_share(pixels(veil(photo(5), Veil.BLURRED), side=256)) < 5e-4


def test_coarse_shapes_are_still_told_apart() -> None:
    left = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    left[:, : SIDE // 2] = 255
    shown = pixels(veil(as_jpeg(Image.fromarray(left)), Veil.BLURRED))
    assert shown[:, :60].mean() > 230
    assert shown[:, -60:].mean() < 25


@pytest.mark.parametrize("size", [(512, 384), (384, 512), (512, 20), (3, 512), (1, 1), (30, 20), (1632, 1224)])
def test_no_picture_is_larger_than_512_and_proportions_stay(size: tuple[int, int]) -> None:
    jpeg = as_jpeg(Image.new("RGB", size, (200, 30, 30)))
    for how, most in ((Veil.BLURRED, 256), (Veil.GREY, 384), (Veil.PLAIN, 512)):
        with Image.open(io.BytesIO(veil(jpeg, how))) as shown:
            assert shown.format == "JPEG"
            assert shown.mode == ("RGB" if how is Veil.PLAIN else "L")
            assert max(shown.size) <= min(most, max(size))
            scale = max(shown.size) / max(size)
            assert all(abs(got - max(1, had * scale)) <= 1 for got, had in zip(shown.size, size, strict=True)), (
                shown.size
            )


def test_colour_and_metadata_are_gone() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    jpeg = as_jpeg(scene(1), exif=exif, comment=b"another secret")
    assert b"secret" in jpeg
    for how in Veil:
        assert b"secret" not in veil(jpeg, how)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot identify"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "cannot identify"),
        (as_jpeg(scene(1))[:3000], "truncated"),
        (as_jpeg(Image.new("L", (2049, 8))), "2049 x 8"),
        (b"\xff\xd8\xff" + b"\0" * 900_000, "900003 bytes"),
    ],
)
def test_what_is_no_frame_of_ours_is_refused(content: bytes, said: str) -> None:
    for how in Veil:
        with pytest.raises(FrameUnreadable, match=said):
            veil(content, how)
