import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.spool.errors import ParcelUnreadable
from gateway.spool.parcels import Parcel
from schemas.topics import ANSWERS, IMAGES_BACKLOG
from tests.unit.gateway.spool.messages import make_answer, make_image


@pytest.mark.parametrize(("topic", "message"), [(IMAGES_BACKLOG, make_image(1)), (ANSWERS, make_answer(1))])
def test_a_parcel_comes_back_as_it_went(topic, message):
    parcel = Parcel(topic, message, message.sha256)
    assert Parcel.from_bytes(parcel.to_bytes()) == parcel


def test_unknown_fields_are_passed_over():
    fields = msgpack.unpackb(Parcel(IMAGES_BACKLOG, make_image(1), b"key").to_bytes())
    assert Parcel.from_bytes(msgpack.packb(fields | {"later": 1})).key == b"key"


@pytest.mark.parametrize(
    "change",
    [
        {"topic": "no.such.topic"},
        {"topic": []},
        {"schema": "image-submitted/99"},
        {"schema": None},
        {"schema": 1},
        {"value": b""},
        {"value": 5},
        {"value": "text"},
        {"key": "text"},
    ],
)
def test_a_parcel_of_another_release_is_refused(change):
    fields = msgpack.unpackb(Parcel(IMAGES_BACKLOG, make_image(1), b"key").to_bytes())
    with pytest.raises(ParcelUnreadable):
        Parcel.from_bytes(msgpack.packb(fields | change))


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(data):
    with pytest.raises(ParcelUnreadable):
        Parcel.from_bytes(data)
