"""Tables: columns and rows, chosen by the request's query, as a page, JSON or CSV.

Who has the rows gets a `Selection` (search, filters, order, which part) and gives `Rows`. The order and the filters
are links and a form; nothing needs a script.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, Select

from federation_audit.pages.cells import Cell

Row = TypeVar("Row")

PAGE_ROWS = 50
_TERM_MOST = 200
_PAGE_MOST = 1_000_000
Format = Literal["html", "json", "csv"]


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """A column: `key` names it in JSON, CSV and links. `starts` is the direction that the first click gives."""

    key: str
    title: str
    cell: Callable[[Row], Cell]
    sortable: bool = False
    starts: Literal["up", "down"] = "up"
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """A field of the form above a table: a search when it has no options, else a choice (value, title). `unset` is the
    title of choosing none of them."""

    key: str
    title: str
    options: Sequence[tuple[str, str]] = ()
    hint: str = ""
    unset: str = "all"


@dataclass(frozen=True, slots=True)
class Table(Generic[Row]):
    """A table. `name` goes into file names; `empty` says what it means that there are no rows."""

    name: str
    title: str
    columns: Sequence[Column[Row]]
    order: str
    empty: str
    filters: Sequence[Filter] = ()
    row_class: Callable[[Row], str] = field(default=lambda _: "")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows are wanted. `order` is a column's key; rows `start` to `start + size` are to be given."""

    order: str
    down: bool
    page: int
    size: int
    terms: Mapping[str, str]

    @property
    def start(self) -> int:
        """How many rows come before."""
        return (self.page - 1) * self.size

    def term(self, key: str) -> str:
        """What was entered in a filter; empty when nothing was."""
        return self.terms.get(key, "")


@dataclass(frozen=True, slots=True)
class Rows(Generic[Row]):
    """The rows of a selection, and how many there are in all parts."""

    rows: Sequence[Row]
    total: int


def select_rows(table: Table[Any], query: Mapping[str, str], *, size: int) -> Selection:
    """The selection of a query string. What it does not understand is passed over."""
    sortable = {column.key: column for column in table.columns if column.sortable}
    asked = query.get("sort", "")
    key = asked.removeprefix("-")
    if key not in sortable:
        asked, key = table.order, table.order.removeprefix("-")
    page = query.get("page", "1")
    number = int(page) if page.isascii() and page.isdecimal() and len(page) < 9 else 1
    terms = {
        each.key: value[:_TERM_MOST]
        for each in table.filters
        if (value := query.get(each.key, "").replace("\0", "").strip())  # PostgreSQL takes no NUL
        and (not each.options or value in {option for option, _ in each.options})
    }
    return Selection(key, asked.startswith("-"), min(max(number, 1), _PAGE_MOST), size, terms)


def take(rows: Iterable[Row], table: Table[Row], selection: Selection, matches: Callable[[Row], bool]) -> Rows[Row]:
    """`rows` that are in memory: those that match, in order, the part that is wanted."""
    column = next(each for each in table.columns if each.key == selection.order)

    def rank(row: Row) -> tuple[bool, Any]:
        cell = column.cell(row)
        value = getattr(cell, "value", getattr(cell, "at_ms", getattr(cell, "text", cell)))
        value = getattr(value, "text", value)
        return (value is None) is not selection.down, "" if value is None else value

    found = sorted(filter(matches, rows), key=rank, reverse=selection.down)
    return Rows(found[selection.start : selection.start + selection.size], len(found))


def ordered(
    statement: Select[Any], selection: Selection, columns: Mapping[str, ColumnElement[Any]], *, last: ColumnElement[Any]
) -> Select[Any]:
    """`statement` in the selection's order and part. `columns` has each sortable key; `last` settles ties."""
    column = columns[selection.order]
    down = selection.down
    statement = statement.order_by(column.desc() if down else column.asc(), last.desc() if down else last.asc())
    return statement.offset(selection.start).limit(selection.size)


@dataclass(frozen=True, slots=True)
class Links:
    """The addresses that a table's page links to: the same selection, in one thing different."""

    path: str
    table: Table[Any]
    selection: Selection

    def sort(self, column: Column[Any]) -> str:
        """In the order of `column`; the other way round when it is so already."""
        same = column.key == self.selection.order
        down = not self.selection.down if same else column.starts == "down"
        return self._to(replace(self.selection, order=column.key, down=down, page=1))

    def page(self, number: int) -> str:
        """Another part."""
        return self._to(replace(self.selection, page=number))

    def form(self, kind: Format) -> str:
        """The same rows, all of them, as JSON or CSV."""
        return self._to(replace(self.selection, page=1), format=kind)

    def exported(self, kind: Format, number: int) -> str:
        """Another part of a file."""
        return self._to(replace(self.selection, page=number), format=kind)

    @property
    def sorted_by(self) -> str:
        """The value of the query's sort."""
        return ("-" if self.selection.down else "") + self.selection.order

    def _to(self, selection: Selection, **extra: str) -> str:
        query: dict[str, str] = dict(selection.terms)
        order = ("-" if selection.down else "") + selection.order
        if order != self.table.order:
            query["sort"] = order
        if selection.page > 1:
            query["page"] = str(selection.page)
        query |= extra
        return f"{self.path}?{urlencode(query)}" if query else self.path
