"""What comes of a rescan: its images as they were judged again, beside what stands of them now.

Two topics are read: first `rescans`, where the newest offset of each image counts, then `verdicts`, from where the
rescan began to now. The latter holds what was decided before, what has been decided since (which a rescan never
replaces), and what of the rescan is carried out already: its own verdicts, each of which names the one it replaces.
"""

import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import partial
from typing import Final, NamedTuple, TypeVar, cast

from fediwarden.rescan.judging import HELD_BY_LIST, HELD_BY_OVERRIDE, decisions_of, is_of_list, is_withdrawn
from gateway.overrides.memory import Overrides, looks_in
from schemas.broker import BrokerSettings, Received, check_topics, read_history
from schemas.messages import (
    Decision,
    Rejudged,
    RescanJudged,
    RescanOrdered,
    RescanTier,
    RuleFired,
    Stage,
    Verdict,
)
from schemas.topics import MINUTE_MS, OVERRIDES, RESCANS, VERDICTS

CLIENT_ID: Final = "fediwarden-rescan"
POINTS_MOST: Final = 2_000
"""Images whose old and new scores are kept for a plot."""

ERASED: Final = "erased"
"""Why an image is held that is rejected by now: its frames are on their way out of the archive."""

_SLACK_MS = 10 * MINUTE_MS  # a verdict and its archived frames, a job and its first record, are published near together

Refuses = Callable[[str, Decision], bool]
"""Whether a tenant refuses images of a decision."""

Scores = tuple[tuple[str, ...], "array[float]"]
"""Labels, and what each scored."""

_Value = TypeVar("_Value")


class Fate(StrEnum):
    """What becomes of an image that a rescan spoke of."""

    OPEN = "open"
    """It can be carried out, and is not."""
    APPLIED = "applied"
    UNDONE = "undone"
    """It was carried out, and taken back."""
    UNCHANGED = "unchanged"
    """It stays as it is in every respect: there is nothing to carry out."""
    HELD = "held"
    """It keeps its decision: an override holds, a list decided, or it could not be judged."""
    OVERTAKEN = "overtaken"
    """It has been judged again since, live: that stands."""
    OTHER = "other"
    """It stood otherwise than the images that the rescan is about; frames do not tell how theirs stand."""
    GONE = "gone"
    """The verdict that it was judged from, or that stood when its frames were, is not kept any more."""


class Step(Enum):
    """What the verdict that stands is: somebody else's, or this rescan's own."""

    FOREIGN = 0
    APPLIED = 1
    UNDONE = 2


@dataclass(slots=True, eq=False)
class Image:
    """One image judged again, and what stands of it.

    `source` is the offset of what it was judged from, `base_at` that of the verdict which the rescan is to replace, -1
    while that has not been met; `before` and `rules_before` are what it says. `stands_at` and `stood_at` are those of
    the newest verdict that counts and of the one before it; all of them are in `partition`. `held` is the rescan's
    word, `held_now` what speaks against it since. `is_asked` says whether the rescan is about images that stood so,
    `moves` whether its judge or decision is another than before.
    """

    tenant: str
    sha256: bytes
    scan_id: str
    partition: int
    source: int
    after: Decision | None
    held: str
    rules: tuple[RuleFired, ...]
    scores: Scores
    worst_frame: int
    policy: str
    hash_list: str
    models: Mapping[str, str]
    judged_at: int
    before: Decision | None = None
    rules_before: tuple[str, ...] = ()
    held_now: str = ""
    is_asked: bool = True
    base_at: int = -1
    stands_at: int = -1
    stood_at: int = -1
    stands_judged_at: int = 0
    moves: bool = True
    step: Step = Step.FOREIGN
    overtaken: bool = False

    @property
    def fate(self) -> Fate:
        """What becomes of it, as things stand."""
        if self.after is None or self.held or self.held_now:
            return Fate.HELD
        if self.base_at < 0:
            return Fate.GONE
        if not self.is_asked:
            return Fate.OTHER
        if self.overtaken:
            return Fate.OVERTAKEN
        if not self.moves:
            return Fate.UNCHANGED
        return {Step.FOREIGN: Fate.OPEN, Step.APPLIED: Fate.APPLIED, Step.UNDONE: Fate.UNDONE}[self.step]

    @property
    def counts(self) -> bool:
        """Whether the rescan decides about it."""
        return self.fate in (Fate.OPEN, Fate.APPLIED, Fate.UNDONE, Fate.UNCHANGED)

    @property
    def flips(self) -> bool:
        """Whether its decision is another than before."""
        return self.before is not self.after


class Point(NamedTuple):
    """One image's score before (None: there was none) and after, and what was decided each time."""

    old: float | None
    new: float
    before: Decision
    after: Decision


@dataclass(slots=True)
class RuleCount:
    """In how many images a rule of this name fired: before alone, after alone, in both."""

    before: int = 0
    after: int = 0
    both: int = 0


@dataclass(slots=True)
class Outcome:
    """What a rescan comes to, as it stood when it was read.

    `images` are all that it spoke of; the counts are about those that it decides about (`Image.counts`). `held` counts
    the others by why. `removals` are those that their tenant would accept before and refuses after: what is stored of
    them is removed. `released` are the other way round. `points` are some images' scores by ``model/label``.
    """

    job: RescanOrdered
    images: Mapping[tuple[str, bytes], Image] = field(default_factory=dict)
    decisions: Counter[tuple[Decision, Decision]] = field(default_factory=Counter)
    rules: dict[str, RuleCount] = field(default_factory=dict)
    fates: Counter[Fate] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    removals: int = 0
    released: int = 0
    points: dict[str, list[Point]] = field(default_factory=dict)

    @property
    def counted(self) -> int:
        """Images that the rescan decides about."""
        return self.decisions.total()

    @property
    def changed(self) -> int:
        """Those of them that are decided differently."""
        return sum(count for (before, after), count in self.decisions.items() if before is not after)

    def flips(self) -> Iterator[Image]:
        """The images that are decided differently."""
        return (image for image in self.images.values() if image.counts and image.flips)


class Tally:
    """Adds up records: those of `rescans` by `take_judged`, then those of `verdicts` by `take_verdict`, in the order of
    each partition; the latter may go on after `outcome`, which then says what has come."""

    def __init__(self, job: RescanOrdered, overrides: Overrides, *, refuses: Refuses) -> None:
        self._job = job
        self._overrides = overrides
        self._refuses = refuses
        self._decisions = decisions_of(job.only)
        self.images: dict[tuple[str, bytes], Image] = {}
        self.next_offsets: dict[int, int] = {}
        self._alike: dict[object, object] = {}
        self._old_scores: dict[tuple[str, bytes], Mapping[str, float]] = {}
        self._plotted: set[tuple[str, bytes]] | None = None

    def take_judged(self, received: Received) -> None:
        """Take in one record of `rescans`."""
        judged = received.message
        if not isinstance(judged, RescanJudged) or judged.rescan != self._job.rescan:
            return
        models = self._same(tuple(sorted(judged.models.items())), dict(judged.models))
        for each in judged.images:
            key = (self._same(each.tenant, each.tenant), each.sha256)
            known = self.images.get(key)
            if known is None or known.source <= each.offset:
                self.images[key] = self._image(each, key[0], judged.partition, models, judged.judged_at)

    def take_verdict(self, received: Received) -> None:
        """Take in one record of `verdicts`."""
        self.next_offsets[received.partition] = received.offset + 1
        verdict = received.message
        if not isinstance(verdict, Verdict):
            return
        image = self.images.get((verdict.tenant, verdict.sha256))
        if image is None:
            return
        if verdict.stage is Stage.RESCAN and verdict.rescan == self._job.rescan:
            self._take_own(image, verdict, received.offset)
        elif self._is_base(image, verdict, received):
            self._take_base(image, verdict, received)
        elif _says_little(verdict):
            pass
        elif image.base_at >= 0 or self._job.tier is RescanTier.FRAMES or received.offset > image.source:
            image.overtaken = True

    def models_of(self, image: Image, base: Verdict) -> Mapping[str, str]:
        """The models that judged an image again: others than before only where it was seen anew."""
        return image.models if self._job.tier is RescanTier.FRAMES else base.models

    def outcome(self) -> Outcome:
        """What all of it comes to."""
        made = Outcome(self._job, self.images)
        for key, image in self.images.items():
            fate = image.fate
            made.fates[fate] += 1
            if fate is Fate.HELD:
                made.held[image.held or image.held_now or "incomplete"] += 1
            if not image.counts or image.before is None or image.after is None:
                continue
            made.decisions[image.before, image.after] += 1
            self._count_rules(made.rules, image)
            refused = [self._refuses(image.tenant, decision) for decision in (image.before, image.after)]
            made.removals += refused == [False, True]
            made.released += refused == [True, False]
            if key in self._old_scores:
                self._add_points(made.points, image, self._old_scores[key])
        return made

    def _image(self, each: Rejudged, tenant: str, partition: int, models: Mapping[str, str], judged_at: int) -> Image:
        labels = self._same(tuple(each.scores), tuple(each.scores))
        return Image(
            tenant=tenant,
            sha256=each.sha256,
            scan_id=each.scan_id,
            partition=partition,
            source=each.offset,
            after=each.after,
            held=each.held,
            rules=self._same(each.rules, each.rules),
            scores=(labels, array("d", each.scores.values())),
            worst_frame=each.worst_frame,
            policy=sys.intern(each.policy),
            hash_list=sys.intern(each.hash_list),
            models=models,
            judged_at=judged_at,
        )

    def _same(self, key: object, value: _Value) -> _Value:
        """The first of all that are equal: a million images name the same few models, rules and labels."""
        return cast(_Value, self._alike.setdefault((type(value), key), value))

    def _is_base(self, image: Image, verdict: Verdict, received: Received) -> bool:
        """Whether the rescan is about this verdict: that which it was judged from, or that stood beside the frames."""
        if self._job.tier is RescanTier.FRAMES:
            is_before = received.timestamp_ms <= self._job.until and image.step is Step.FOREIGN
            return is_before and not _says_little(verdict)
        return (received.partition, received.offset) == (image.partition, image.source)

    def _take_base(self, image: Image, verdict: Verdict, received: Received) -> None:
        image.partition = received.partition
        image.base_at = image.stands_at = received.offset
        image.stands_judged_at = verdict.judged_at
        image.before = verdict.decision
        image.is_asked = self._decisions is None or verdict.decision in self._decisions
        policy, models = image.policy or verdict.policy, self.models_of(image, verdict)
        judged_alike = (policy, models) == (verdict.policy, verdict.models)
        image.moves = image.flips or not judged_alike or image.hash_list not in ("", verdict.hash_list)
        names = tuple(sorted({rule.name for rule in verdict.rules}))
        image.rules_before = self._same(names, names)
        image.held_now = ""
        judges_lists = self._job.tier is RescanTier.HASHES
        if verdict.stage is Stage.OVERRIDE:
            image.held_now = HELD_BY_OVERRIDE
        elif is_of_list(verdict) and not judges_lists:
            image.held_now = HELD_BY_LIST
        elif self._job.tier is RescanTier.FRAMES and verdict.decision is Decision.REJECT:
            image.held_now = ERASED
        elif len(self._overrides) and self._overrides.of_image(verdict.tenant, verdict.sha256, looks_in(verdict)):
            image.held_now = HELD_BY_OVERRIDE
        key = (image.tenant, image.sha256)
        if image.scores[0] and self._is_plotted(key, flips=image.flips):
            old = verdict.scores
            self._old_scores[key] = {label: old[label] for label in image.scores[0] if label in old}

    def _take_own(self, image: Image, verdict: Verdict, offset: int) -> None:
        if image.overtaken or image.base_at < 0:
            return  # it came too late: in the meantime the image had been judged live
        if verdict.offset == image.stands_at:
            image.stood_at = image.stands_at
            image.step = Step.UNDONE if image.step is Step.APPLIED else Step.APPLIED
        elif verdict.offset != image.stood_at:  # else two who carried it out at once said the same
            return
        image.stands_at, image.stands_judged_at = offset, verdict.judged_at

    def _is_plotted(self, key: tuple[str, bytes], *, flips: bool) -> bool:
        """Some images, evenly chosen, and of those that flip as many again."""
        if self._plotted is None:
            step = max(1, -(-len(self.images) // POINTS_MOST))
            self._plotted = {each for number, each in enumerate(self.images) if number % step == 0}
        return key in self._plotted or (flips and len(self._old_scores) < 2 * POINTS_MOST)

    def _count_rules(self, rules: dict[str, RuleCount], image: Image) -> None:
        before, after = set(image.rules_before), {rule.name for rule in image.rules}
        for name in before | after:
            count = rules.setdefault(name, RuleCount())
            count.both += name in before and name in after
            count.before += name not in after
            count.after += name not in before

    def _add_points(self, points: dict[str, list[Point]], image: Image, old: Mapping[str, float]) -> None:
        assert image.before is not None and image.after is not None, "it counts"
        for label, new in zip(*image.scores, strict=True):
            points.setdefault(label, []).append(Point(old.get(label), new, image.before, image.after))


def _says_little(verdict: Verdict) -> bool:
    """A list that does not refuse an image leaves the decision to the scanner's verdict of the same scan."""
    return is_withdrawn(verdict) or (verdict.stage is Stage.LIST and verdict.decision is not Decision.REJECT)


async def read_tally(
    broker: BrokerSettings,
    job: RescanOrdered,
    *,
    refuses: Refuses,
    on_progress: Callable[[str, int, int], None] = lambda what, passed, of: None,
) -> Tally:
    """Everything that `job` has said so far, beside the verdicts until now. `on_progress` gets what is read, how many
    records are passed, and of how many. Raises a `schemas.broker.BrokerError`."""
    await check_topics(broker, (RESCANS, OVERRIDES, VERDICTS))
    overrides = Overrides()
    tally = Tally(job, overrides, refuses=refuses)
    read = partial(read_history, broker, client_id=CLIENT_ID)
    await read(
        (RESCANS,),
        since_ms=max(0, job.ordered_at - _SLACK_MS),
        on_record=tally.take_judged,
        on_progress=partial(on_progress, "rescans"),
    )
    await read((OVERRIDES,), since_ms=0, on_record=overrides.observe)
    await read(
        (VERDICTS,),
        since_ms=max(0, job.since - _SLACK_MS),
        on_record=tally.take_verdict,
        on_progress=partial(on_progress, "verdicts"),
    )
    return tally


def by_instance(
    flips: Iterable[Image], instances: Mapping[tuple[str, bytes], Iterable[str]]
) -> dict[str, Counter[tuple[Decision, Decision]]]:
    """The flips of each instance that posted them; "" are those whose instance is not known."""
    found: dict[str, Counter[tuple[Decision, Decision]]] = {}
    for image in flips:
        assert image.before is not None and image.after is not None, "it counts"
        for domain in instances.get((image.tenant, image.sha256)) or ("",):
            found.setdefault(domain, Counter())[image.before, image.after] += 1
    return found
