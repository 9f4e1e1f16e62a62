"""Many rows at a time, in the SQL that both databases speak."""

import json
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Insert,
    Select,
    Table,
    any_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

Item = TypeVar("Item")
Whole = TypeVar("Whole", np.int32, np.int64)

CHUNK = 5_000
"""Most values in one IN: SQLite takes 32,766 parameters, and a statement's plan is made anew for each number."""

_ROWS_AT_ONCE = 50_000


def chunks(items: Collection[Item], size: int = CHUNK) -> Iterator[list[Item]]:
    """`items` in lists of at most `size`."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def among(connection: Connection, column: Column[int], ids: Collection[int]) -> ColumnElement[bool]:
    """That `column` is one of `ids`. They travel as one parameter: thousands of parameters cost more than the query."""
    if connection.dialect.name == "sqlite":
        listed = func.json_each(bindparam("ids", json.dumps(list(ids)), unique=True)).table_valued("value")
        return column.in_(select(listed.c.value))
    return column == any_(bindparam("ids", list(ids), type_=ARRAY(BigInteger), unique=True))


def smallest(connection: Connection, column: Column[bytes]) -> ColumnElement[str]:
    """The smallest of a column of bytes, in hexadecimal: PostgreSQL before 18 has no min() of bytes themselves."""
    if connection.dialect.name == "sqlite":
        return func.lower(func.min(func.hex(column)))
    return func.min(func.encode(column, "hex").collate("C"))


def rows_among(connection: Connection, query: Select[Any], column: Column[int], ids: Collection[int]) -> Iterator[Any]:
    """The rows of `query` whose `column` is one of `ids`, however many these are."""
    for chunk in chunks(ids):  # all of a chunk's rows at once: SQLAlchemy takes longer over them one by one
        yield from connection.execute(query.where(among(connection, column, chunk))).all()


def rows_by_bytes(
    connection: Connection, columns: Sequence[Column[Any]], key: Column[bytes], values: Collection[bytes]
) -> Iterator[Any]:
    """`columns` of the rows whose `key`, of the same table, is one of `values`.

    By the driver's own SQL: bytes cannot travel in JSON, and SQLAlchemy takes longer over parameters than the query.
    """
    selected = f"SELECT {', '.join(column.name for column in columns)} FROM {key.table.name} WHERE {key.name}"  # noqa: S608 - names of ours
    for chunk in chunks(values):
        if connection.dialect.name == "sqlite":
            marks = ", ".join("?" * len(chunk))
            yield from connection.exec_driver_sql(f"{selected} IN ({marks})", tuple(chunk)).all()
        else:
            yield from connection.exec_driver_sql(f"{selected} = ANY(%s)", (chunk,)).all()


@overload
def read_integers(connection: Connection, query: Select[Any]) -> list[npt.NDArray[np.int64]]: ...


@overload
def read_integers(connection: Connection, query: Select[Any], dtype: type[Whole]) -> list[npt.NDArray[Whole]]: ...


def read_integers(connection: Connection, query: Select[Any], dtype: type[Any] = np.int64) -> list[npt.NDArray[Any]]:
    """The columns of `query`, which are whole numbers and never NULL.

    Raises OverflowError where one is too large for `dtype`.
    """
    columns = [array(np.dtype(dtype).char) for _ in query.selected_columns]
    result = connection.execute(query)
    assert result.cursor is not None
    while rows := result.cursor.fetchmany(_ROWS_AT_ONCE):  # the driver's tuples: a million Row objects cost seconds
        flat = np.fromiter(chain.from_iterable(rows), dtype, count=len(rows) * len(columns))
        for column, values in zip(columns, flat.reshape(len(rows), -1).T, strict=True):
            column.frombytes(values.tobytes())
    result.close()
    return [np.frombuffer(column, dtype) for column in columns]


def put(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert `rows`, each with every column; one that is there, by its primary key, gets the new values."""
    _upsert(connection, table, rows, lambda _there, new: new)


def increase(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert `rows`, each with every column; to one that is there, by its primary key, the new values are added."""
    _upsert(connection, table, rows, lambda there, new: there + new)


def add(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert `rows` that are not there yet."""
    if rows:
        _execute_many(connection, insert(table), rows)


def change(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Give rows that are there new values; each of `rows` has the primary key and the same other columns."""
    if not rows:
        return
    key = [column.name for column in table.primary_key]
    statement = update(table).where(*(table.c[name] == bindparam(f"at_{name}") for name in key))
    statement = statement.values({name: bindparam(f"to_{name}") for name in rows[0] if name not in key})
    connection.execute(
        statement, [{(f"at_{n}" if n in key else f"to_{n}"): value for n, value in row.items()} for row in rows]
    )


def remove(
    connection: Connection, table: Table, keys: Sequence[Mapping[str, Any]], *, where: ColumnElement[bool] | None = None
) -> None:
    """Delete the rows with these `keys`, which name the same columns; with `where`, those of them of which it is so."""
    if not keys:
        return
    statement = delete(table).where(*(table.c[name] == bindparam(f"at_{name}") for name in keys[0]))
    if where is not None:
        statement = statement.where(where)
    connection.execute(statement, [{f"at_{name}": value for name, value in key.items()} for key in keys])


def _upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    meet: Callable[[ColumnElement[Any], ColumnElement[Any]], ColumnElement[Any]],
) -> None:
    """Insert `rows`; where one is there, each other column gets what `meet` makes of what is there and what is new."""
    if not rows:
        return
    statement = (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(table)
    key = [column.name for column in table.primary_key]
    rest = {column.name: meet(column, statement.excluded[column.name]) for column in table.c if column.name not in key}
    if rest:
        _execute_many(connection, statement.on_conflict_do_update(index_elements=key, set_=rest), rows)
    else:
        _execute_many(connection, statement.on_conflict_do_nothing(index_elements=key), rows)


def _execute_many(connection: Connection, statement: Insert, rows: Sequence[Mapping[str, Any]]) -> None:
    """Execute `statement` for each of `rows`, all with the same columns.

    SQLAlchemy writes the SQL, once, and the driver takes the values as they are: numbers, texts and bytes need no
    conversion, and looking for one, row by row, takes SQLAlchemy longer than the database takes to insert them.
    """
    compiled = statement.compile(dialect=connection.dialect, column_keys=list(rows[0]))
    if compiled.positiontup is None:  # the driver takes values by name
        connection.exec_driver_sql(compiled.string, list(rows))
    else:
        values = itemgetter(*compiled.positiontup)  # of the tables here, none has a single column
        connection.exec_driver_sql(compiled.string, [values(row) for row in rows])
