"""Who may write. One row says it, looked at and prolonged in every transaction that writes.

A process that was stopped for longer than its lease finds at its next transaction that another one has it, and writes
nothing. A process that was killed keeps others waiting for `LEASE_MS` at most. Clocks of machines that share a
PostgreSQL must not differ by more than that.
"""

from sqlalchemy import Connection, or_, select, update

from federation_audit.store.errors import LeaseTaken
from federation_audit.store.tables import LEASE
from schemas.clock import now_ms

LEASE_MS = 5_000


def hold(connection: Connection, holder: str) -> None:
    """Take or prolong the lease for `holder`. Raises `LeaseTaken`."""
    now = now_ms()
    mine_or_over = or_(LEASE.c.holder == holder, LEASE.c.until < now)
    values = {"holder": holder, "until": now + LEASE_MS}
    if connection.execute(update(LEASE).where(mine_or_over).values(values)).rowcount:
        return
    other = connection.execute(select(LEASE.c.holder)).scalar_one()
    raise LeaseTaken(f"{other} writes the audit store; one process does at a time")


def release(connection: Connection, holder: str) -> None:
    """Give the lease back, if `holder` has it."""
    connection.execute(update(LEASE).where(LEASE.c.holder == holder).values(until=0))
