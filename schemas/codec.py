"""Messages to bytes and back.

A record's value is the msgpack map of a message's fields; its ``schema`` header says which message it is, as
``<name>/<major>`` or ``<name>/<major>.<minor>``. Readers dispatch on the header and never sniff the bytes: unknown
fields and unknown minor versions are read, an unknown name or major version is refused.

Errors, all `CodecError`::

    CodecError
    ├── SchemaMissing      no schema header
    ├── SchemaUnknown      a name or major version this reader does not know
    └── MessageInvalid     not msgpack, not a map, or fields that break the message's rules
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgpack
from pydantic import ValidationError

from schemas.messages import MESSAGES, Message

SCHEMA_HEADER = "schema"
IMPORTED_HEADER = "imported"
"""On a record that was brought from elsewhere, long after the fact: history, which nobody is to act on."""

Views = Mapping[tuple[str, int], type[Message]]
"""What to read records of a schema's name and major version as: a message with fewer of the fields, for speed."""

NO_VIEWS: Views = MappingProxyType({})
_READERS: Views = {(message.SCHEMA, message.VERSION): message for message in MESSAGES}
_MAJOR_DIGITS = 9
_MAX_CONTAINER = 1 << 16  # no message holds more items; a hostile length prefix must not allocate


class CodecError(Exception):
    """A record that cannot be read as a message. `reason` is one word for logs and the dead-letter topic."""

    reason = "undecodable"


class SchemaMissing(CodecError):
    """The record has no schema header: it was not written by fediwarden."""

    reason = "schema-missing"


class SchemaUnknown(CodecError):
    """The record names a message or a major version that this release does not read."""

    reason = "schema-unknown"


class MessageInvalid(CodecError):
    """The record's bytes are not a valid message of the schema it names."""

    reason = "message-invalid"


def schema_of(message: Message) -> str:
    """The schema header's value for `message`, such as ``verdict/1``."""
    return f"{message.SCHEMA}/{message.VERSION}"


def encode(message: Message) -> bytes:
    """The record value of `message`."""
    packed: bytes = msgpack.packb(message.model_dump(mode="python"), use_bin_type=True)
    return packed


def decode(schema: str | None, value: bytes, views: Views = NO_VIEWS) -> Message:
    """The message in a record's `value`, of the type its `schema` header names, or the one that `views` has for it.

    Raises `SchemaMissing`, `SchemaUnknown` or `MessageInvalid`.
    """
    if not schema:
        raise SchemaMissing("the record has no 'schema' header; was something else written to this topic?")
    name, _, version = schema.partition("/")
    major = version.partition(".")[0]
    is_number = major.isascii() and major.isdecimal() and len(major) <= _MAJOR_DIGITS
    named = (name, int(major)) if is_number else ("", 0)
    reader = views.get(named) or _READERS.get(named)
    if reader is None:
        known = ", ".join(sorted(f"{n}/{v}" for n, v in _READERS))
        raise SchemaUnknown(f"schema {schema[:80]!r} is not read by this release ({known}); upgrade fediwarden")
    try:
        fields = msgpack.unpackb(
            value, raw=False, strict_map_key=True, max_array_len=_MAX_CONTAINER, max_map_len=_MAX_CONTAINER
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise MessageInvalid(f"{schema}: not msgpack ({type(error).__name__}: {error})") from error
    if not isinstance(fields, dict):
        raise MessageInvalid(f"{schema}: a map of fields was expected, not {type(fields).__name__}")
    try:
        return reader.model_validate(fields)
    except ValidationError as error:
        raise MessageInvalid(f"{schema}: {_first_fault(error)}") from error


def schema_header(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """The schema header's text, or None where it is missing or not text."""
    for name, value in headers:
        if name == SCHEMA_HEADER and value is not None:
            try:
                return value.decode("ascii")
            except UnicodeDecodeError:
                return None
    return None


def _first_fault(error: ValidationError) -> str:
    # The input itself is left out: it may be a user's.
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"field {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
