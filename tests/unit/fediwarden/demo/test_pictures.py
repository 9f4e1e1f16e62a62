"""The demo's pictures: the same again, copies near one another, motifs apart, as the gateway itself sees them."""

import numpy as np
import pytest

from fediwarden.demo.pictures import Motif, draw, render
from fediwarden.demo.world import SEED, forbidden_motifs, make_week
from gateway.frames.extract import extract
from gateway.frames.frame import QUALITY_LEAST, FrameSet
from gateway.frames.settings import FrameSettings
from gateway.lists.kinds import DISTANCE_MOST

STILL = Motif(7)
STAR = Motif(7, forbidden=True)
MOVING = Motif(7, animated=True)


def seen(data: bytes) -> FrameSet:
    return extract(data, FrameSettings())


def bits(pdq: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(pdq, np.uint8))


def distance(first: bytes, second: bytes) -> int:
    return int((bits(first) != bits(second)).sum())


@pytest.mark.parametrize("motif", [STILL, STAR, MOVING])
def test_the_same_again_and_nothing_else_is_the_same(motif):
    picture = draw(motif, 1)
    assert draw(motif, 1) == picture
    others = [draw(motif, 2), draw(Motif(8, motif.forbidden, motif.animated), 1), draw(motif, 1, copy=1)]
    assert picture.data not in [other.data for other in others]


def test_the_gateway_reads_every_format_as_what_it_is_sent_as():
    kinds = set()
    for number in range(40):
        picture = draw(Motif(number), SEED)
        assert seen(picture.data).media_type == picture.media_type
        kinds.add(picture.media_type)
    assert kinds == {"image/jpeg", "image/png", "image/webp"}


def test_an_animated_one_has_frames_that_differ():
    frames = seen(draw(MOVING, 1).data).frames
    assert len(frames) > 1
    assert len({frame.pdq for frame in frames}) > 1
    assert len(render(MOVING, 1)) > 1


def test_every_copy_in_the_week_is_near_its_original_and_fit_for_matching():
    copies = [(post.motif, post.copy) for post in make_week() if post.motif.forbidden]
    assert len(copies) > 30
    for motif, copy in copies:
        original, copied = seen(draw(motif, SEED).data).frames[0], seen(draw(motif, SEED, copy).data).frames[0]
        assert min(original.pdq_quality, copied.pdq_quality) >= QUALITY_LEAST
        assert distance(original.pdq, copied.pdq) <= DISTANCE_MOST, (motif, copy)


def test_motifs_lie_far_apart_also_when_turned():
    stars = [seen(draw(motif, SEED).data).frames[0] for motif in forbidden_motifs()]
    others = [seen(draw(Motif(number), SEED).data).frames[0] for number in range(1, 120)]
    for place, star in enumerate(stars):
        ways = [star.pdq, *(star.pdq_turned[at : at + 32] for at in range(0, len(star.pdq_turned), 32))]
        for other in (*stars[:place], *others):
            assert min(distance(way, other.pdq) for way in ways) > 2 * DISTANCE_MOST
