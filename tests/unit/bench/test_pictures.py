"""What the load generator's pictures promise."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.pictures import LARGEST, SMALLEST, Relabelled, make_picture, make_pictures


@pytest.fixture(scope="module")
def some() -> list[bytes]:
    return [make_picture(seed) for seed in range(8)]


def test_pictures_are_two_megapixel_jpegs_within_the_promised_sizes(some: list[bytes]) -> None:
    for jpeg in some:
        assert SMALLEST <= len(jpeg) <= LARGEST
        with Image.open(io.BytesIO(jpeg)) as image:
            assert image.format == "JPEG"
            assert 1.4e6 < image.width * image.height < 2.6e6


def test_no_two_pictures_are_alike_and_each_is_made_again_the_same(some: list[bytes]) -> None:
    assert len(set(some)) == len(some)
    assert make_picture(3) == some[3]


def test_pictures_are_made_once_and_then_read_from_the_folder(tmp_path: Path, some: list[bytes]) -> None:
    assert make_pictures(2, tmp_path) == some[:2]
    (tmp_path / "00001.jpg").write_bytes(b"kept")
    assert make_pictures(2, tmp_path) == [some[0], b"kept"]


def test_a_number_changes_the_bytes_but_not_the_pixels(some: list[bytes]) -> None:
    picture = Relabelled(some[0])
    variants = [picture.numbered(number) for number in (0, 1, 2**64 - 1)]
    assert len({hashlib.sha256(variant).digest() for variant in (*variants, some[0])}) == 4
    assert {len(variant) for variant in variants} == {len(some[0]) - 2 + Relabelled.head_length()}
    with Image.open(io.BytesIO(some[0])) as image:
        wanted = np.asarray(image)
    for variant in variants:
        with Image.open(io.BytesIO(variant)) as image:
            assert np.array_equal(np.asarray(image), wanted)
