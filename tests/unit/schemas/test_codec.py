import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import (
    CodecError,
    MessageInvalid,
    SchemaMissing,
    SchemaUnknown,
    decode,
    encode,
    schema_header,
    schema_of,
)
from schemas.messages import FrameInfo, ImageSubmitted, SealedFrames, Verdict
from tests.unit.schemas.samples import SAMPLES, image, verdict

FRAMES = st.builds(
    FrameInfo,
    at_ms=st.integers(0, 1 << 40),
    width=st.integers(1, 512),
    height=st.integers(1, 512),
    pdq=st.binary(min_size=32, max_size=32),
    pdq_quality=st.integers(0, 100),
)
IMAGES = st.builds(
    ImageSubmitted,
    scan_id=st.text(min_size=1, max_size=64),
    tenant=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True),
    sha256=st.binary(min_size=32, max_size=32),
    length=st.integers(0, 1 << 40),
    media_type=st.text(max_size=30),
    received_at=st.integers(0, 1 << 45),
    deadline_at=st.integers(0, 1 << 45),
    frames=st.lists(FRAMES, min_size=1, max_size=8).map(tuple),
    sealed=st.builds(
        SealedFrames,
        key_id=st.text(min_size=1, max_size=32),
        nonce=st.binary(min_size=12, max_size=12),
        ciphertext=st.binary(max_size=2000),
    ),
    gateway=st.text(max_size=20),
)


@given(IMAGES)
def test_any_image_survives_the_wire(message):
    assert decode(schema_of(message), encode(message)) == message


@pytest.mark.parametrize("name", SAMPLES)
def test_every_message_survives_the_wire(name):
    message = SAMPLES[name]
    again = decode(schema_of(message), encode(message))
    assert again == message
    assert type(again) is type(message)


@given(st.binary(max_size=300), st.sampled_from(["image-submitted/1", "verdict/1", "scanner-announced/1.7"]))
def test_no_bytes_raise_anything_but_a_codec_error(value, schema):
    with contextlib.suppress(CodecError):
        decode(schema, value)


@given(st.text(max_size=40))
def test_no_header_raises_anything_but_a_codec_error(schema):
    with pytest.raises(CodecError):
        decode(schema, b"\x80")


def test_unknown_fields_are_tolerated():
    fields = verdict().model_dump() | {"a_field_to_come": {"nested": [1, 2]}}
    assert decode("verdict/1", msgpack.packb(fields)) == verdict()


def test_an_unknown_minor_version_is_read():
    assert decode("verdict/1.9", encode(verdict())) == verdict()


@pytest.mark.parametrize(
    "schema", ["verdict/2", "verdict/", "verdict", "verdict/x", "verdict/²", "verdikt/1", "/1", "verdict/" + "1" * 5000]
)
def test_an_unknown_name_or_major_version_is_refused_by_name(schema):
    with pytest.raises(SchemaUnknown, match="upgrade fediwarden"):
        decode(schema, encode(verdict()))


@pytest.mark.parametrize("schema", [None, ""])
def test_a_record_without_a_schema_header_is_refused(schema):
    with pytest.raises(SchemaMissing):
        decode(schema, encode(verdict()))


def test_a_hash_of_the_wrong_length_names_its_field():
    fields = image().model_dump() | {"sha256": b"short"}
    with pytest.raises(MessageInvalid, match="field sha256"):
        decode("image-submitted/1", msgpack.packb(fields))


def test_a_score_that_is_no_number_is_refused():
    fields = verdict().model_dump() | {"scores": {"safety-s/nsfw": float("nan")}}
    with pytest.raises(MessageInvalid, match="scores"):
        decode("verdict/1", msgpack.packb(fields))


def test_an_error_never_repeats_what_a_user_sent():
    fields = image().model_dump() | {"tenant": "A SECRET NAME"}
    with pytest.raises(MessageInvalid) as caught:
        decode("image-submitted/1", msgpack.packb(fields))
    assert "SECRET" not in str(caught.value)


def test_the_fullest_verdict_is_under_one_kilobyte():
    assert len(encode(verdict())) <= 1024


def test_messages_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        verdict().decision = "accept"
    assert isinstance(verdict(), Verdict)


def test_the_schema_header_is_found_among_others_and_garbage_is_none():
    assert schema_header([("trace", b"x"), ("schema", b"verdict/1")]) == "verdict/1"
    assert schema_header([("schema", b"\xff\xfe")]) is None
    assert schema_header([("schema", None)]) is None
