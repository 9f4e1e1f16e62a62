"""JSON lines: a first line that says what the file is, then one message a line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import orjson

from fediwarden.export.errors import FileUnusable, ImportInvalid
from fediwarden.export.kinds import KINDS, Kind
from fediwarden.export.rows import Row, RowInvalid, message_of, moment_of, ms_of, row_of
from schemas.codec import encode, schema_of
from schemas.messages import Message

PUBLISHED: Final = "published_at"
"""A column that no message has: when the record was published, which `--since` and retention go by."""

MESSAGE: Final = "message"
"""Which message a line is, where a topic holds several."""

FORMAT: Final = "fediwarden export 1"
_LINE_MOST: Final = 4 << 20
_ENVELOPE: Final = 512
_CORRECT: Final = "correct the line, or take it out"


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a file, and when it was published; `line` counts from 1, and the first line is the file's own."""

    line: int
    message: Message
    published_at: int
    encoded: bytes


def first_line(kind: Kind, *, exported_at: int, since: int, until: int | None, tenants: Sequence[str]) -> bytes:
    """What an export of `kind` begins with."""
    return _line(
        {
            "format": FORMAT,
            "export": kind.name,
            "messages": [f"{message.SCHEMA}/{message.VERSION}" for message in kind.messages],
            "exported_at": moment_of(exported_at),
            "since": moment_of(since),
            "until": None if until is None else moment_of(until),
            "tenants": list(tenants),
        }
    )


def line_of(kind: Kind, message: Message, published_at: int) -> bytes:
    """The line of one message."""
    return _line(row_with_envelope(kind, message, published_at))


def row_with_envelope(kind: Kind, message: Message, published_at: int) -> Row:
    """The row of one message, with the columns that are not its own."""
    which = {MESSAGE: message.SCHEMA} if len(kind.messages) > 1 else {}
    return which | row_of(message) | {PUBLISHED: moment_of(published_at)}


def read_kind(path: Path, file: IO[bytes]) -> Kind:
    """What the file is, by its first line. Raises `ImportInvalid` or `FileUnusable`."""
    no_export = "this is no JSON-lines export of fediwarden"
    remedy = "make one with: fediwarden export verdicts --output FILE"
    head = _parse(path, 1, _read_line(path, file, 1), what=no_export, remedy=remedy)
    if head.get("format") != FORMAT:
        raise ImportInvalid(path, 1, no_export, field="format", remedy=f"the first line has to say {FORMAT!r}")
    kind = KINDS.get(str(head.get("export")))
    if kind is None:
        raise ImportInvalid(
            path, 1, f"{head.get('export')!r} cannot be imported", field="export", remedy=f"one of {', '.join(KINDS)}"
        )
    ours = [f"{message.SCHEMA}/{message.VERSION}" for message in kind.messages]
    theirs = head.get("messages")
    if not isinstance(theirs, list) or not set(theirs) <= set(ours):
        remedy = f"this fediwarden reads {', '.join(ours)}: update it"
        raise ImportInvalid(path, 1, f"the file holds {theirs}", field="messages", remedy=remedy)
    return kind


def read_entries(path: Path, file: IO[bytes], kind: Kind) -> Iterator[Entry]:
    """Every message of a file whose first line has been read. Raises `ImportInvalid` or `FileUnusable`."""
    by_name = {message.SCHEMA: message for message in kind.messages}
    line = 1
    while text := _read_line(path, file, line := line + 1):
        if not text.strip():
            continue
        row = _parse(path, line, text, what="this is no JSON object", remedy=_CORRECT)
        try:
            type_ = kind.messages[0]
            if len(by_name) > 1:
                named = row.pop(MESSAGE, None)
                if named not in by_name:
                    raise RowInvalid(MESSAGE, f"{named!r} is none of {', '.join(by_name)}")
                type_ = by_name[named]
            published = row.pop(PUBLISHED, None)
            message = message_of(type_, row)
            published_at = kind.time(message) if published is None else ms_of(PUBLISHED, published)
            if published_at < 0:
                raise RowInvalid(PUBLISHED, "this is before 1970")
            encoded = _encode(message)
            if len(encoded) > kind.topic.max_message_bytes - _ENVELOPE:
                raise RowInvalid("", f"with {len(encoded)} bytes it is too large for the topic {kind.topic.name}")
        except RowInvalid as error:
            raise ImportInvalid(path, line, error.what, field=error.column, remedy=error.remedy or _CORRECT) from error
        yield Entry(line, message, published_at, schema_of(message).encode("ascii") + b"\n" + encoded)


def _encode(message: Message) -> bytes:
    try:
        return encode(message)
    except OverflowError as error:
        raise RowInvalid("", "a number is larger than 64 bits hold") from error


def _line(row: Row) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _read_line(path: Path, file: IO[bytes], line: int) -> bytes:
    try:
        text = file.readline(_LINE_MOST)
    except OSError as error:
        raise FileUnusable("read", path, error) from error
    if len(text) == _LINE_MOST:
        raise ImportInvalid(path, line, f"it is longer than {_LINE_MOST >> 20} MiB", remedy=_CORRECT)
    return text


def _parse(path: Path, line: int, text: bytes, *, what: str, remedy: str) -> Row:
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ImportInvalid(path, line, what, remedy=remedy) from error
    if not isinstance(row, dict):
        raise ImportInvalid(path, line, what, remedy=remedy)
    return row
