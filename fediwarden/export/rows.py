"""Messages as flat rows for files, and back, with nothing lost.

A row is a map of plain values by column: hashes hexadecimal, times ISO 8601 in UTC with milliseconds. Columns are the
message's fields; the milliseconds of `Timings` are columns of their own (``infer_ms``). A time that ISO 8601 has no
year for stays a number of milliseconds since the epoch, and a number that JSON has no word for is "inf", "-inf" or
"nan".
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache, partial
from operator import attrgetter
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from schemas.messages import Message, Timings

Row = dict[str, Any]

TIMES: Final = frozenset(
    {"received_at", "judged_at", "set_at", "until", "observed_at", "forgotten_at", "at", "published_at"}
)
"""Columns that are moments. By name, for a type does not tell milliseconds from any other number."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)

AnyMessage = TypeVar("AnyMessage", bound=Message)


class RowInvalid(Exception):
    """A row is no message: `column` is to blame, "" where all of it is."""

    def __init__(self, column: str, what: str, *, remedy: str = "") -> None:
        super().__init__(f"{column}: {what}")
        self.column = column
        self.what = what
        self.remedy = remedy


def row_of(message: BaseModel) -> Row:
    """The row of a message, or of a part of one."""
    row: Row = {}
    for column in _columns(type(message)):
        value = getattr(message, column.name)
        if column.nested is Timings:
            row |= {f"{name}_ms": _finite(each) for name, each in value}
        else:
            row[column.name] = value if column.plain is None or value is None else column.plain(value)
    return row


def message_of(kind: type[AnyMessage], row: Mapping[str, Any]) -> AnyMessage:
    """The message of type `kind` that `row` is. Columns that it lacks have the message's own defaults.

    Raises `RowInvalid`, also for a column that no such message has.
    """
    try:
        return kind.model_validate(_fields(kind, row))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise RowInvalid(_column_of(fault["loc"]), fault["msg"]) from error


def column_names(kind: type[BaseModel]) -> Iterator[str]:
    """The columns of a row of that type, in order."""
    for column in _columns(kind):
        if column.nested is Timings:
            yield from (f"{name}_ms" for name in Timings.model_fields)
        else:
            yield column.name


def moment_of(at_ms: int) -> str | int:
    """Such as 2026-11-23T18:00:00.000Z."""
    if at_ms > _LAST_MS:
        return at_ms
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")[:-6] + "Z"


def ms_of(column: str, value: object) -> int:
    """Milliseconds since the epoch. Raises `RowInvalid`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        if not isinstance(value, str):
            raise TypeError
        return (datetime.fromisoformat(value) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, TypeError) as error:  # TypeError too: without a zone it cannot be compared
        raise RowInvalid(column, "this is no time with its zone, such as 2026-11-23T18:00:00.000Z") from error


@dataclass(frozen=True, slots=True)
class _Column:
    """One field of a message: whether it holds bytes, the messages within it, if there are any, and how its values are
    made plain, None where they are."""

    name: str
    bytes: bool
    nested: type[BaseModel] | None
    plain: Callable[[Any], Any] | None


@cache
def _columns(kind: type[BaseModel]) -> tuple[_Column, ...]:
    columns = []
    for name, field in kind.model_fields.items():
        leaves = set(_leaves(field.annotation))
        nested = next((each for each in leaves if issubclass(each, BaseModel)), None)
        plain = _plain(name, leaves, nested)
        if get_origin(field.annotation) is tuple:
            plain = list if plain is None else partial(_each, plain)
        columns.append(_Column(name, bytes in leaves, nested, plain))
    return tuple(columns)


def _leaves(annotation: Any) -> Iterator[type]:
    """The types that an annotation is made of; maps whole, for their keys are no columns."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _leaves(get_args(annotation)[0])
    elif isinstance(origin or annotation, type) and origin in (None, dict):
        yield origin or annotation
    else:
        for each in get_args(annotation):
            yield from _leaves(each)


def _plain(name: str, leaves: set[type], nested: type[BaseModel] | None) -> Callable[[Any], Any] | None:
    if nested is not None:
        return row_of
    if bytes in leaves:
        return bytes.hex
    if any(issubclass(each, Enum) for each in leaves):
        return attrgetter("value")
    if name in TIMES:
        return moment_of
    return _finite if float in leaves else None


def _each(plain: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    return [plain(value) for value in values]


def _finite(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


def _fields(kind: type[BaseModel], row: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    left = dict(row)
    for column in _columns(kind):
        if column.nested is Timings:
            names = {f"{name}_ms": name for name in Timings.model_fields}
            fields[column.name] = {name: left.pop(long) for long, name in names.items() if long in left}
        elif column.name in left:
            fields[column.name] = _field(column, left.pop(column.name))
    for name in left:
        raise RowInvalid(
            name,
            f"a {getattr(kind, 'SCHEMA', kind.__name__)} has no such column",
            remedy="if a newer fediwarden wrote the file, update this one",
        )
    return fields


def _field(column: _Column, value: Any) -> Any:
    if isinstance(value, list):
        return [_field(column, each) for each in value]
    if value is None:
        return None
    if column.nested is not None:
        if not isinstance(value, dict):
            raise RowInvalid(column.name, "an object was expected")
        try:
            return _fields(column.nested, value)
        except RowInvalid as error:
            raise RowInvalid(f"{column.name}.{error.column}", error.what, remedy=error.remedy) from error
    if column.bytes:
        try:
            return bytes.fromhex(value)
        except (ValueError, TypeError) as error:
            raise RowInvalid(column.name, "hexadecimal digits were expected") from error
    return ms_of(column.name, value) if column.name in TIMES else value


def _column_of(place: tuple[int | str, ...]) -> str:
    if place[:1] == ("timings",) and len(place) > 1:
        return f"{place[1]}_ms"
    return ".".join(map(str, place))
