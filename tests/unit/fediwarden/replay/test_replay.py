"""Which topics images may be replayed into, and what stands in them."""

import pytest

from fediwarden.replay.errors import TargetRefused
from fediwarden.replay.records import ImageReplayed, Unreadable, decrypted
from fediwarden.replay.targets import check_name
from schemas.codec import encode
from schemas.keyring import Keyring
from schemas.messages import ImageSubmitted
from schemas.topics import TOPICS
from tests.unit.schemas.samples import image

JPEGS = [b"first", b"second"]
OURS = Keyring.generate()


def sealed_with(keyring: Keyring, jpegs: list[bytes] = JPEGS) -> ImageSubmitted:
    plain = image()
    return image(sealed=keyring.seal(jpegs, sha256=plain.sha256, tenant=plain.tenant))


@pytest.mark.parametrize("name", [spec.name for spec in TOPICS])
@pytest.mark.parametrize("prefix", ["fediwarden.", "fw-", ""])
def test_a_topic_of_ours_is_never_written_to(name: str, prefix: str) -> None:
    for whole in (prefix + name, name, f"another.{name}"):
        with pytest.raises(TargetRefused, match="--to-topic"):
            check_name(whole, prefix)


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "x" * 250, "__consumer_offsets", "fediwarden.mine", "ä"])
def test_what_is_no_name_for_another_s_topic_is_refused(name: str) -> None:
    with pytest.raises(TargetRefused):
        check_name(name, "fediwarden.")


@pytest.mark.parametrize("name", ["model-images", "lab.replayed", "x" * 249])
def test_other_topics_are_others(name: str) -> None:
    check_name(name, "fediwarden.")
    check_name(name, "")


def test_an_image_in_the_clear_has_its_facts_and_its_frames() -> None:
    sealed = sealed_with(OURS)
    plain = decrypted(sealed, OURS)
    assert plain.jpegs == tuple(JPEGS)
    for name in ImageReplayed.model_fields.keys() - {"jpegs"}:
        assert getattr(plain, name) == getattr(sealed, name)
    assert b"second" in encode(plain)


@pytest.mark.parametrize(
    ("sealed", "reason"),
    [
        (sealed_with(Keyring.generate()), "which is not in the key file"),
        (sealed_with(Keyring({OURS.primary: b"x" * 32}, OURS.primary)), "does not open it"),
        (sealed_with(OURS).model_copy(update={"tenant": "another"}), "does not open it"),
        (sealed_with(OURS, [b"one"]), "the frames that it names"),
    ],
)
def test_why_an_image_cannot_be_had_is_named(sealed: ImageSubmitted, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decrypted(sealed, OURS)
