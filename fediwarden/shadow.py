"""What a shadow would have decided, beside what was decided: verdicts.shadow joined with verdicts by scan id."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from schemas.broker import BrokerSettings, Received, check_topics, read_history
from schemas.messages import Decision, Stage, Verdict
from schemas.topics import VERDICTS, VERDICTS_SHADOW

EXAMPLES = 10
_CLOCKS_APART_MS = 60_000


class Judge(NamedTuple):
    """Who judged: a policy's id, and its models with theirs."""

    policy: str
    models: tuple[tuple[str, str], ...]


class _Said(NamedTuple):
    decision: Decision
    rules: frozenset[str]


@dataclass(slots=True)
class RuleCount:
    """In how many images a rule of this name fired: in the live policy alone, in the shadow's alone, in both."""

    live: int = 0
    shadow: int = 0
    both: int = 0


@dataclass(slots=True)
class Comparison:
    """What a shadow would have changed. `decisions` counts images by (live, shadow) decision; `examples` are scan ids.

    `without_live` are images that only the shadow has judged, `without_shadow` those of its time that it has not
    (yet). `others` counts the records of other shadows, which are left out.
    """

    judge: Judge | None = None
    decisions: Counter[tuple[Decision, Decision]] = field(default_factory=Counter)
    examples: dict[tuple[Decision, Decision], list[str]] = field(default_factory=dict)
    rules: dict[str, RuleCount] = field(default_factory=dict)
    without_live: int = 0
    without_shadow: int = 0
    others: Counter[Judge] = field(default_factory=Counter)

    @property
    def compared(self) -> int:
        """Images that both have judged."""
        return self.decisions.total()

    @property
    def changed(self) -> int:
        """Images that they decide differently."""
        return sum(count for (live, shadow), count in self.decisions.items() if live is not shadow)


class Tally:
    """Adds up records: all of verdicts.shadow by `take_shadow`, then verdicts by `take_live`.

    Of several shadows, the one counts whose verdicts are the latest: of those of `policy`, an id, and with `model`, a
    name and an id, where these are given.
    """

    def __init__(self, policy: str = "", model: tuple[str, str] | None = None) -> None:
        self._policy = policy
        self._model = model
        self._by_judge: dict[Judge, dict[str, _Said]] = {}
        self._received: dict[Judge, list[int]] = {}
        self._latest: dict[Judge, int] = {}
        self._live: dict[str, tuple[_Said, int]] = {}

    def take_shadow(self, received: Received) -> None:
        """Take in one record of verdicts.shadow."""
        verdict = received.message
        if not isinstance(verdict, Verdict):
            return
        judge = Judge(verdict.policy, tuple(sorted(verdict.models.items())))
        self._by_judge.setdefault(judge, {})[verdict.scan_id] = _said(verdict)
        span = self._received.setdefault(judge, [verdict.received_at, verdict.received_at])
        span[:] = min(span[0], verdict.received_at), max(span[1], verdict.received_at)
        self._latest[judge] = max(self._latest.get(judge, 0), verdict.judged_at)

    @property
    def judge(self) -> Judge | None:
        """The shadow that is compared; None where there is none."""
        wanted = [
            each
            for each in self._latest
            if self._policy in ("", each.policy) and (self._model is None or self._model in each.models)
        ]
        return max(wanted, key=lambda each: self._latest[each], default=None)

    @property
    def since_ms(self) -> int | None:
        """From when on live verdicts are needed; None where none is."""
        return None if self.judge is None else max(0, self._received[self.judge][0] - _CLOCKS_APART_MS)

    def take_live(self, received: Received) -> None:
        """Take in one record of verdicts; neither what an override says nor what a rescan does."""
        verdict = received.message
        if isinstance(verdict, Verdict) and verdict.stage not in (Stage.OVERRIDE, Stage.RESCAN):
            self._live[verdict.scan_id] = (_said(verdict), verdict.received_at)

    def comparison(self) -> Comparison:
        """What all of it comes to."""
        judge = self.judge
        made = Comparison(judge)
        made.others.update({each: len(said) for each, said in self._by_judge.items() if each != judge})
        if judge is None:
            return made
        shadows, (first, last) = self._by_judge[judge], self._received[judge]
        for scan_id, shadow in shadows.items():
            if scan_id not in self._live:
                made.without_live += 1
                continue
            live, _ = self._live[scan_id]
            pair = (live.decision, shadow.decision)
            made.decisions[pair] += 1
            if live.decision is not shadow.decision and len(made.examples.setdefault(pair, [])) < EXAMPLES:
                made.examples[pair].append(scan_id)
            for rule in live.rules | shadow.rules:
                count = made.rules.setdefault(rule, RuleCount())
                count.both += rule in live.rules and rule in shadow.rules
                count.live += rule not in shadow.rules
                count.shadow += rule not in live.rules
        made.without_shadow = sum(
            first <= received_at <= last for scan_id, (_, received_at) in self._live.items() if scan_id not in shadows
        )
        return made


def _said(verdict: Verdict) -> _Said:
    return _Said(verdict.decision, frozenset(rule.name for rule in verdict.rules))


async def compare(
    broker: BrokerSettings,
    *,
    since_ms: int,
    policy: str = "",
    model: tuple[str, str] | None = None,
    on_progress: Callable[[str, int, int], None] = lambda what, passed, of: None,
) -> Comparison:
    """Compare what was published to verdicts.shadow since then, as `Tally` says.

    Raises a `schemas.broker.BrokerError`.
    """
    await check_topics(broker, (VERDICTS, VERDICTS_SHADOW))
    tally = Tally(policy, model)
    read = partial(read_history, broker, client_id="fediwarden-shadow")
    await read(
        (VERDICTS_SHADOW,),
        since_ms=since_ms,
        on_record=tally.take_shadow,
        on_progress=partial(on_progress, "verdicts.shadow"),
    )
    if tally.since_ms is not None:
        await read(
            (VERDICTS,),
            since_ms=tally.since_ms,
            on_record=tally.take_live,
            on_progress=partial(on_progress, "verdicts"),
        )
    return tally.comparison()
