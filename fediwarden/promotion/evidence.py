"""What is known of a model before it judges: what a shadow made of it, or that it has judged before."""

from collections.abc import Callable
from dataclasses import dataclass

from fediwarden.shadow import Comparison, compare
from schemas.broker import BrokerSettings, Received, check_topics, read_history
from schemas.messages import Stage, Verdict
from schemas.topics import DAY_MS, HOUR_MS, VERDICTS

OnProgress = Callable[[str, int, int], None]

_LOOK_BACK_MS = (HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
"""How far back verdicts are looked through for a model that has judged: whoever rolls back does so soon."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one model, by name and id: what a shadow with it has judged, and whether it is known to have judged live.

    Whether it has is looked up only where no shadow has judged.
    """

    name: str
    model_id: str
    comparison: Comparison
    has_judged: bool

    @property
    def suffices(self) -> bool:
        """Whether anybody has seen what it decides."""
        return self.has_judged or self.comparison.compared > 0


class _Found(Exception):
    """A verdict of the model: reading may end."""


async def find_evidence(
    broker: BrokerSettings,
    name: str,
    model_id: str,
    *,
    since_ms: int,
    at_ms: int,
    on_progress: OnProgress = lambda what, passed, of: None,
) -> Evidence:
    """Look for what the shadow has judged since `since_ms`, else for live verdicts of the model in the last 30 days.

    Raises a `schemas.broker.BrokerError`.
    """
    comparison = await compare(broker, since_ms=since_ms, model=(name, model_id), on_progress=on_progress)
    has_judged = comparison.compared == 0 and await _has_judged(broker, name, model_id, at_ms, on_progress)
    return Evidence(name, model_id, comparison, has_judged)


async def _has_judged(broker: BrokerSettings, name: str, model_id: str, at_ms: int, on_progress: OnProgress) -> bool:
    def look(received: Received) -> None:
        if is_verdict_of(received, name, model_id):
            raise _Found

    await check_topics(broker, (VERDICTS,))
    try:
        for back_ms in _LOOK_BACK_MS:
            await read_history(
                broker,
                (VERDICTS,),
                since_ms=max(0, at_ms - back_ms),
                on_record=look,
                on_progress=lambda passed, of: on_progress("verdicts", passed, of),
                client_id="fediwarden-promote",
            )
    except _Found:
        return True
    return False


def is_verdict_of(received: Received, name: str, model_id: str) -> bool:
    """Whether a record is a verdict that scanners reached with this model."""
    verdict = received.message
    return (
        isinstance(verdict, Verdict)
        and verdict.stage in (Stage.LIVE, Stage.BACKLOG)
        and verdict.models.get(name) == model_id
    )
