"""What another policy would have made of the pictures of the verdict log.

A verdict keeps the highest score of all frames per label, to four digits, and no pixels. For a picture of one frame
that is all a policy needs. For one of several it is not: the highest scores may come from different frames, which a
rule would not count together. Such pictures are judged by the highest scores all the same, and counted apart.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from scanner.policy import Judgement, Policy, media_kind
from schemas.broker import BrokerSettings, Received, check_topics, read_history
from schemas.messages import Decision, Stage, Verdict
from schemas.topics import VERDICTS

Flip = tuple[Decision, Decision]


class Kept(Protocol):
    """What of a verdict a policy needs."""

    @property
    def scores(self) -> Mapping[str, float]:
        """The highest of all frames per ``model/label``."""

    @property
    def media_type(self) -> str:
        """What the file is."""

    @property
    def frame_count(self) -> int:
        """How many frames it has that differ."""


def judge_kept(policy: Policy, kept: Kept) -> Judgement | None:
    """What `policy` makes of what a verdict keeps; None where it keeps not all the scores that are looked at."""
    if not policy.scores <= kept.scores.keys():
        return None
    return policy.judge([kept.scores], media_kind(kept.media_type, kept.frame_count))


@dataclass(slots=True)
class Recount:
    """How two policies judge the same verdicts, taken in one by one.

    `flips` counts decisions that differ, by (first, second): of pictures with one frame; `flips_by_highest` those of
    several frames, judged by their highest scores. `lacking` counts verdicts without some score, by its name.
    `unlike_recorded` counts verdicts that the first policy reached and that it does not reach again from what is kept.
    """

    first: Policy
    second: Policy
    tenant: str = ""
    examples: int = 5
    single: int = 0
    several: int = 0
    incomplete: int = 0
    unreadable: int = 0
    unlike_recorded: int = 0
    flips: Counter[Flip] = field(default_factory=Counter)
    flips_by_highest: Counter[Flip] = field(default_factory=Counter)
    lacking: Counter[str] = field(default_factory=Counter)
    scan_ids: defaultdict[Flip, list[str]] = field(default_factory=lambda: defaultdict(list))

    def take(self, received: Received) -> None:
        """Take in one record of `verdicts`."""
        verdict = received.message
        if not isinstance(verdict, Verdict):
            self.unreadable += received.fault is not None
            return
        if self.tenant not in ("", verdict.tenant) or verdict.stage not in (Stage.LIVE, Stage.BACKLOG):
            return  # a list or a moderator decided, whatever the policy
        judged = judge_kept(self.first, verdict), judge_kept(self.second, verdict)
        if judged[0] is None or judged[1] is None:
            self.incomplete += 1
            self.lacking.update((self.first.scores | self.second.scores) - verdict.scores.keys())
            return
        before, after = judged[0].decision, judged[1].decision
        if verdict.policy == self.first.id and verdict.decision is not before:
            self.unlike_recorded += 1
        if verdict.frame_count == 1:
            self.single += 1
        else:
            self.several += 1
        if before is not after:
            (self.flips if verdict.frame_count == 1 else self.flips_by_highest)[before, after] += 1
            if len(self.scan_ids[before, after]) < self.examples:
                self.scan_ids[before, after].append(verdict.scan_id)


async def recount_verdicts(
    settings: BrokerSettings,
    recount: Recount,
    *,
    since_ms: int,
    on_progress: Callable[[int, int], None] = lambda passed, of: None,
) -> None:
    """Take in every verdict that was published at `since_ms` or later. Raises a `BrokerError`."""
    await check_topics(settings, (VERDICTS,))
    await read_history(
        settings,
        (VERDICTS,),
        since_ms=since_ms,
        on_record=recount.take,
        on_progress=on_progress,
        client_id="fediwarden-policy",
    )
