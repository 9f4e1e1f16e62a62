from pathlib import Path

import pytest

from schemas.codec import encode
from schemas.topics import FRAMES_MAX_BYTES, IMAGE_MAX_BYTES, MAX_MESSAGE_BYTES, TOPICS
from tests.unit.schemas.samples import image

DESIGNED = {
    "images",
    "images.backlog",
    "images.archive",
    "verdicts",
    "verdicts.shadow",
    "features",
    "scanners",
    "answers",
    "origins",
    "enforcements",
    "overrides",
    "rescans",
    "rescan.jobs",
    "sweeps",
    "models.promoted",
    "images.dead",
}


def test_every_topic_of_the_design_is_declared_once():
    assert {spec.name for spec in TOPICS} == DESIGNED
    assert len(TOPICS) == len(DESIGNED)


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.name)
def test_a_topic_says_who_writes_and_who_reads_it(spec):
    assert spec.writers
    assert spec.readers


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.name)
def test_only_compacted_topics_hold_back_compaction(spec):
    assert ("max.compaction.lag.ms" in spec.extra) == ("compact" in spec.cleanup)


def test_the_largest_frame_set_fits_its_record():
    sealed = image().sealed.model_copy(update={"ciphertext": b"x" * (FRAMES_MAX_BYTES + 200)})
    fullest = image(sealed=sealed, frames=image().frames[:1] * 8, scan_id="x" * 64, gateway="x" * 100)
    assert len(encode(fullest)) < IMAGE_MAX_BYTES - 10_000
    assert MAX_MESSAGE_BYTES == IMAGE_MAX_BYTES


def test_the_ceiling_in_bytes_is_shared_by_the_partitions():
    archive = next(spec for spec in TOPICS if spec.name == "images.archive")
    config = archive.config(min_insync=1)
    assert int(config["retention.bytes"]) * archive.partitions <= 5 << 30


def test_the_documentation_names_every_topic():
    text = (Path(__file__).parents[3] / "docs" / "topics.md").read_text()
    for spec in TOPICS:
        assert f"`{spec.name}`" in text
