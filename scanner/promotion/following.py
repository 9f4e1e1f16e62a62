"""A running scanner beside what is promoted: it says when other models are, checks them, and leaves in its turn."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from scanner.announcing import Announcer
from scanner.models.model import ModelError
from scanner.policy import PolicyError
from scanner.promotion.fleet import AWAY_MOST_S, HEARD_WITHIN_S, Fleet
from scanner.promotion.promoted import Promoted
from schemas.broker import BrokerSettings, Received, Tail
from schemas.clock import now_ms
from schemas.messages import ModelsPromoted, ScannerAnnounced
from schemas.topics import MODELS_PROMOTED, SCANNERS

log = structlog.get_logger("scanner.promotion")

LOOK_EVERY_S: Final = 0.5
CHECK_AGAIN_S: Final = 60.0
_PAST_S: Final = AWAY_MOST_S + 2 * HEARD_WITHIN_S

Check = Callable[[Sequence[str]], None]
"""Raises `ModelError` or `PolicyError` where models could not be loaded, or judged by the policies. May block."""


class Follower:
    """Watches what is promoted for the group of a scanner that judges with the models `own`.

    `chosen` are those of its settings: what is to be loaded where nothing is promoted. `refused` is a promotion that
    could not be loaded although `check` says that it can: it is not tried again before it is promoted anew.
    """

    def __init__(
        self,
        *,
        broker: BrokerSettings,
        scanner: str,
        group: str,
        own: Sequence[str],
        chosen: Sequence[str],
        check: Check,
        announcer: Announcer,
        refused: ModelsPromoted | None = None,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._broker = broker
        self._scanner = scanner
        self._group = group
        self._own = tuple(own)
        self._chosen = tuple(chosen)
        self._check = check
        self._announcer = announcer
        self._refused = refused
        self._look_every_s = look_every_s
        self._promoted = Promoted()
        self._fleet = Fleet(group)
        self._tail: Tail | None = None
        self._checked: tuple[str, ...] = ()
        self._checked_at = float("-inf")
        self._fits = False
        self._told = ""

    async def run(self) -> None:
        """Return when it is this scanner's turn to leave. Raises a `BrokerError` when it cannot follow the topics."""
        topics = (MODELS_PROMOTED, SCANNERS)
        self._tail = Tail(
            self._broker, topics, since_s=_PAST_S, on_record=self._observe, client_id=f"{self._scanner}-promotion"
        )
        async with self._tail as tail:
            await tail.wait_positioned()
            ended = asyncio.create_task(tail.wait_ended())
            try:
                while not await self._may_leave():
                    await asyncio.wait((ended,), timeout=self._look_every_s)
                    if ended.done():
                        ended.result()
            finally:
                ended.cancel()

    async def _may_leave(self) -> bool:
        wanted = self._wanted()
        if set(wanted) == set(self._own) or not await self._is_fit(wanted):
            self._announcer.say_changing(False)
            return False
        self._announcer.say_changing(True)
        turn = self._fleet.turn(self._scanner, wanted, time.monotonic())
        if turn.mine:
            log.info("leaving_for_promoted_models", models=wanted, instead_of=self._own)
            return True
        if turn.why:
            self._tell("promotion_waits", turn.why, wanted)
        return False

    def _wanted(self) -> tuple[str, ...]:
        promoted = self._promoted.of(self._group)
        if promoted is None:
            return self._chosen
        return self._own if promoted == self._refused else promoted.models

    async def _is_fit(self, wanted: tuple[str, ...]) -> bool:
        """Whether `wanted` can be loaded, as it was found to be within the last minute."""
        if wanted == self._checked and time.monotonic() - self._checked_at < CHECK_AGAIN_S:
            return self._fits
        try:
            await asyncio.to_thread(self._check, wanted)
            self._fits = True
        except (ModelError, PolicyError) as error:
            self._fits = False
            self._tell("promotion_refused", str(error), wanted)
        self._checked, self._checked_at = wanted, time.monotonic()
        return self._fits

    def _tell(self, event: str, why: str, wanted: tuple[str, ...]) -> None:
        told = f"{event} {why} {wanted}"
        if told != self._told:
            self._told = told
            report = log.error if event == "promotion_refused" else log.info
            report(event, models=wanted, why=why, judging_with=self._own)

    def _observe(self, received: Received) -> None:
        if received.topic == MODELS_PROMOTED:
            self._promoted.observe(received)
            if received.key == self._group.encode():
                self._fleet.note_promotion()
        elif isinstance(announced := received.message, ScannerAnnounced):
            # Others' clocks may be wrong: of what they say from now on the moment of hearing it counts.
            is_new = self._tail is not None and self._tail.positioned and announced.scanner != self._scanner
            age_s = 0.0 if is_new else max(0.0, (now_ms() - announced.announced_at) / 1000)
            self._fleet.observe(announced, time.monotonic() - age_s)
