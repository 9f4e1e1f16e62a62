"""A message on its way to a topic, as bytes that can wait on disk."""

from dataclasses import dataclass
from typing import Self

import msgpack

from gateway.spool.errors import ParcelUnreadable
from schemas.codec import CodecError, decode, encode, schema_of
from schemas.messages import Message
from schemas.topics import TOPICS, TopicSpec

_TOPICS = {spec.name: spec for spec in TOPICS}


@dataclass(frozen=True, slots=True)
class Parcel:
    """A `message` for `topic` under `key`.

    On disk: the msgpack map ``topic`` (its name without prefix), ``key``, ``schema`` (the record's header) and
    ``value`` (the record's value).
    """

    topic: TopicSpec
    message: Message
    key: bytes

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads."""
        packed: bytes = msgpack.packb(
            {
                "topic": self.topic.name,
                "key": self.key,
                "schema": schema_of(self.message),
                "value": encode(self.message),
            }
        )
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The parcel in `data`. Raises `ParcelUnreadable`."""
        try:
            fields = msgpack.unpackb(data)
            topic, key, value = _TOPICS[fields["topic"]], fields["key"], fields["value"]
            message = decode(fields["schema"], value)
        except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException, RecursionError) as error:
            raise ParcelUnreadable(f"not a parcel of this release ({type(error).__name__}: {error})") from error
        except CodecError as error:
            raise ParcelUnreadable(str(error)) from error
        if not isinstance(key, bytes):
            raise ParcelUnreadable("a parcel's key is bytes")
        return cls(topic, message, key)
