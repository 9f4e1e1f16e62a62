"""Who a user of our own Lemmy is, by the number that its tokens name: for the relay, which sees nothing else."""

import asyncio
import time
from collections.abc import Callable

import structlog

from federation_audit.actors import NotAnActor, normalise_actor
from federation_audit.lemmy.database import LemmyDatabase
from federation_audit.lemmy.errors import LemmyDatabaseError

log = structlog.get_logger("federation_audit.lemmy")

_WITHIN_S = 5.0
_REST_S = 30.0
_NUMBER_MOST = 2**31 - 1


class LocalUsers:
    """The users of one tenant's Lemmy. A database that does not answer is left alone for half a minute."""

    def __init__(self, database: LemmyDatabase, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._asking = asyncio.Lock()
        self._away_until = 0.0
        self._fault = ""

    async def actor_of(self, number: str) -> str | None:
        """The ActivityPub id of the local user of that number, normalised; None where there is none, or the database
        does not say within 5 s. Raises nothing."""
        if not (number.isascii() and number.isdecimal() and int(number[:12]) <= _NUMBER_MOST):
            return None
        async with self._asking:
            if self._clock() < self._away_until:
                return None
            try:
                async with asyncio.timeout(_WITHIN_S):
                    found = await self._database.actor_of(int(number))
            except (LemmyDatabaseError, TimeoutError) as error:
                self._note_fault(str(error) or "no answer in time")
                return None
        self._fault = ""
        try:
            return None if found is None else normalise_actor(found)
        except NotAnActor:
            return None

    def _note_fault(self, fault: str) -> None:
        self._away_until = self._clock() + _REST_S
        if fault != self._fault:  # one line an outage
            log.warning("uploaders_are_known_by_number_alone", error=fault)
        self._fault = fault
