"""One confirmed plan, sent once and recorded, whatever happens."""

from datetime import datetime
from typing import Protocol

from federation_audit.sending.confirming import Confirmation, Outcome, Plan, Sent, check, sent
from federation_audit.sending.errors import NotSent


class Journal(Protocol):
    """Where it is kept what was sent. `begin` must be on disk when it returns: a process may die right after."""

    async def begin(self, plan: Plan, confirmation: Confirmation) -> None:
        """Note that this is about to be sent. Raises `NotConfirmed` when this digest was begun before."""

    async def finish(self, record: Sent) -> None:
        """Note what came of it. What was begun and never finished has the outcome unknown."""

    async def abandon(self, plan: Plan) -> None:
        """Note that nothing was sent after all."""


class Sender(Protocol):
    """A way to send: asks the other side again whether all is as shown, sends, says what came of it."""

    async def send(self, plan: Plan, confirmation: Confirmation, *, at: datetime) -> Sent:
        """Send `plan`. Raises `NotSent` only when nothing has left."""


async def dispatch(plan: Plan, confirmation: Confirmation, sender: Sender, journal: Journal, *, at: datetime) -> Sent:
    """Send `plan` by `sender`, with an entry in `journal` before and after. Raises `NotSent`."""
    check(plan, confirmation)
    await journal.begin(plan, confirmation)
    try:
        record = await sender.send(plan, confirmation, at=at)
    except NotSent:
        await journal.abandon(plan)
        raise
    except BaseException:
        # Cancelled, or a fault of ours: it may have left.
        await journal.finish(
            sent(plan, confirmation, at=at, outcome=Outcome.UNKNOWN, status=None, answer="interrupted while sending")
        )
        raise
    await journal.finish(record)
    return record
