"""Numbers about the store as a whole."""

from typing import NamedTuple

from sqlalchemy import Connection, select

from federation_audit.store.rows import put
from federation_audit.store.tables import STATE


class State(NamedTuple):
    """Horizons (times), which rebuild the content is of, and which one somebody wants.

    `recorded_at` is when a recorder last wrote, 0 where none ever did; `lag` is how many records the topics then had
    that were not in the store, -1 where that was not known.
    """

    horizon: int = 0
    failures_horizon: int = 0
    generation: int = 0
    wanted: int = 0
    recorded_at: int = 0
    lag: int = -1


def read_state(connection: Connection) -> State:
    """As it is."""
    rows = connection.execute(select(STATE))
    return State(**{name: value for name, value in rows if name in State._fields})


def write_state(connection: Connection, **values: int) -> None:
    """Change some of `State`."""
    assert values.keys() <= set(State._fields)
    put(connection, STATE, [{"name": name, "value": value} for name, value in values.items()])
