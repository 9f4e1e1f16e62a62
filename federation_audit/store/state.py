"""Numbers about the store as a whole."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, delete, select

from federation_audit.store.rows import chunks, increase, put
from federation_audit.store.tables import STATE


class State(NamedTuple):
    """Horizons (times), which rebuild the content is of, and which one somebody wants.

    `recorded_at` is when a recorder last wrote, 0 where none ever did; `lag` is how many records the topics then had
    that were not in the store, -1 where that was not known. `flags_change` is another number after each change of what
    is flagged (`store.changes` has what), `reviews_change` after each of what reviewers say: who has read them need not
    do so again while it is the same. What changed up to `flags_anew` is not told any more.
    """

    horizon: int = 0
    failures_horizon: int = 0
    generation: int = 0
    wanted: int = 0
    recorded_at: int = 0
    lag: int = -1
    flags_change: int = 0
    reviews_change: int = 0
    flags_anew: int = 0


def read_state(connection: Connection) -> State:
    """As it is."""
    rows = connection.execute(select(STATE))
    return State(**{name: value for name, value in rows if name in State._fields})


def read_numbers(connection: Connection, prefix: str) -> dict[str, int]:
    """The numbers whose names begin with `prefix`, by the rest of their names. No rebuild touches them."""
    rows = connection.execute(select(STATE).where(STATE.c.name.startswith(prefix, autoescape=True)))
    return {name.removeprefix(prefix): value for name, value in rows}


def write_numbers(connection: Connection, prefix: str, numbers: Mapping[str, int | None]) -> None:
    """Set numbers under `prefix`; None takes one out."""
    assert prefix not in State._fields
    gone = [prefix + name for name, value in numbers.items() if value is None]
    for chunk in chunks(gone):
        connection.execute(delete(STATE).where(STATE.c.name.in_(chunk)))
    kept = [{"name": prefix + name, "value": value} for name, value in numbers.items() if value is not None]
    put(connection, STATE, kept)


def note_reviews_change(connection: Connection) -> None:
    """What reviewers say changes in this transaction. (Several may write at once: the database adds.)"""
    increase(connection, STATE, [{"name": "reviews_change", "value": 1}])


def write_state(connection: Connection, **values: int) -> None:
    """Change some of `State`."""
    assert values.keys() <= set(State._fields)
    put(connection, STATE, [{"name": name, "value": value} for name, value in values.items()])
