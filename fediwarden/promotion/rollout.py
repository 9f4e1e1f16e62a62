"""Promoting, and looking on while the scanners of the group come up with the models one after another."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from fediwarden.promotion.errors import RolloutIncomplete
from scanner.promotion.fleet import HEARD_WITHIN_S, Fleet
from schemas.broker import BrokerSettings, Producer, Received, Tail
from schemas.clock import now_ms
from schemas.messages import ModelsPromoted, ScannerAnnounced
from schemas.topics import MODELS_PROMOTED, SCANNERS

CLIENT_ID: Final = "fediwarden-promote"
_PUBLISH_WITHIN_S = 30.0
_PAST_S = 2 * HEARD_WITHIN_S
_LOOK_EVERY_S = 0.2


class Rollout:
    """How the scanners of a group stand to the models `wanted`. Is handed their announcements, in order."""

    def __init__(self, group: str, wanted: Sequence[str]) -> None:
        self._fleet = Fleet(group)
        self._wanted = frozenset(wanted)

    def observe(self, announced: ScannerAnnounced, at: float) -> None:
        """Take in one announcement, heard at a moment of the reader's clock, in seconds."""
        self._fleet.observe(announced, at)

    def steps(self, now: float) -> dict[str, str]:
        """What each scanner is at, in words."""
        wanted = ", ".join(sorted(self._wanted))
        said = dict.fromkeys(self._fleet.away, f"has left, to come back with {wanted}")
        for each in self._fleet.members(now):
            if each.models == self._wanted:
                said[each.scanner] = f"judges with {wanted}"
            elif each.changing:
                said[each.scanner] = f"waits for its turn, and judges with {', '.join(sorted(each.models))}"
            else:
                said[each.scanner] = f"judges with {', '.join(sorted(each.models))}"
        return said

    def missing(self, now: float) -> list[str]:
        """Who does not judge with the models wanted yet, and what it is at."""
        steps = self.steps(now)
        behind = [each.scanner for each in self._fleet.members(now) if each.models != self._wanted]
        return [f"{name} {steps[name]}" for name in (*self._fleet.away, *behind)]

    def is_nobody_there(self, now: float) -> bool:
        """Whether no scanner of the group runs."""
        return not self._fleet.members(now) and not self._fleet.away


async def promote(
    broker: BrokerSettings,
    group: str,
    promotion: ModelsPromoted | None,
    wanted: Sequence[str],
    *,
    within_s: float,
    on_step: Callable[[str], None],
) -> bool:
    """Publish `promotion` (None: the settings choose again), and wait until all scanners judge with `wanted`.

    `on_step` is told what each scanner does, a line at a time. Returns whether there were scanners to wait for; with
    `within_s` 0 none is waited for. Raises `RolloutIncomplete`, which says who is missing, or a
    `schemas.broker.BrokerError`.
    """
    rollout = Rollout(group, wanted)
    tail: Tail | None = None

    def observe(received: Received) -> None:
        if isinstance(announced := received.message, ScannerAnnounced):
            is_new = tail is not None and tail.positioned
            age_s = 0.0 if is_new else max(0.0, (now_ms() - announced.announced_at) / 1000)
            rollout.observe(announced, time.monotonic() - age_s)

    async with Producer(broker, client_id=CLIENT_ID) as producer:
        tail = Tail(broker, (SCANNERS,), since_s=_PAST_S, on_record=observe, client_id=CLIENT_ID)
        async with tail:
            await tail.wait_positioned()
            await producer.publish(MODELS_PROMOTED, promotion, key=group.encode(), give_up_after=_PUBLISH_WITHIN_S)
            if rollout.is_nobody_there(time.monotonic()):
                return False
            if within_s > 0:
                await _wait(rollout, within_s, on_step)
    return True


async def _wait(rollout: Rollout, within_s: float, on_step: Callable[[str], None]) -> None:
    give_up_at = time.monotonic() + within_s
    told: dict[str, str] = {}
    while True:
        now = time.monotonic()
        for name, step in rollout.steps(now).items():
            if told.get(name) != step:
                told[name] = step
                on_step(f"{name} {step}")
        missing = rollout.missing(now)
        if not missing and not rollout.is_nobody_there(now):
            return
        if now >= give_up_at:
            who = "; ".join(missing) or "no scanner of the group is left"
            raise RolloutIncomplete(
                f"the models are promoted, but after {within_s:.0f} s not every scanner judges with them: {who}. "
                "A scanner's log says why (promotion_waits, promotion_refused, promoted_models_refused); one that has "
                "left has to be started again; promoting the old model takes all of it back"
            )
        await asyncio.sleep(_LOOK_EVERY_S)
