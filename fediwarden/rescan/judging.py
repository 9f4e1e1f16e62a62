"""Judging one verdict again, from what it keeps: pure, so that two workers say the same of the same record.

A verdict keeps the highest score of all frames per label, the frames' hashes, and no pixels. From scores, an image of
one frame is judged exactly, and one of several by its highest scores, as `fediwarden policy diff` does.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Protocol

import numpy as np
from pydantic import Field

from fediwarden.policies.rejudging import judge_kept
from gateway.frames.frame import QUALITY_LEAST
from gateway.lists.kinds import HashKind
from gateway.lists.loaded import LoadedList
from gateway.lists.match import Match, strongest
from gateway.overrides.memory import Overrides, looks_of
from scanner.concepts import PolicyConcepts
from scanner.policy import Policy, media_kind
from scanner.policy.judging import STRENGTH, Judgement
from schemas.codec import Views
from schemas.messages import (
    EVERY_TENANT,
    Decision,
    FeaturesExtracted,
    Message,
    PdqHash,
    Rejudged,
    RescanOnly,
    RuleFired,
    ScanId,
    Score,
    Sha256,
    Stage,
    TenantName,
    Verdict,
)

HELD_BY_OVERRIDE: Final = "override"
HELD_BY_LIST: Final = "list"
INCOMPLETE: Final = "incomplete"

_DIGITS = 4  # of a score in a verdict


class KeptVerdict(Message):
    """What judging again needs of a `Verdict`, with the same checks: reading the rest takes as long again."""

    SCHEMA: ClassVar[str] = Verdict.SCHEMA
    VERSION: ClassVar[int] = Verdict.VERSION
    scan_id: ScanId
    tenant: TenantName
    sha256: Sha256
    decision: Decision
    scores: dict[str, Score]
    frame_count: Annotated[int, Field(ge=1)] = 1
    pdq: tuple[PdqHash, ...] = ()
    pdq_quality: tuple[Annotated[int, Field(ge=0, le=100)], ...] = ()
    media_type: str = ""
    models: dict[str, str]
    stage: Stage
    hash_list: str = ""


VIEWS: Final[Views] = {(Verdict.SCHEMA, Verdict.VERSION): KeptVerdict}
"""How a consumer reads verdicts for judging."""

Placed = tuple[int, KeptVerdict]
"""A verdict, after the offset that it stands at."""


def is_of_list(verdict: KeptVerdict | Verdict) -> bool:
    """Whether a known-hash list alone decided: a gateway's hit, or a rescan's."""
    return verdict.stage is Stage.LIST or (verdict.stage is Stage.RESCAN and bool(verdict.hash_list))


def is_withdrawn(verdict: KeptVerdict | Verdict) -> bool:
    """Whether it takes back a rescan's hit of a list: then the verdict before that stands."""
    return verdict.stage is Stage.RESCAN and bool(verdict.hash_list) and verdict.decision is not Decision.REJECT


class Judge(Protocol):
    """Makes new decisions. `unlists` says whether what a known-hash list decided is judged too."""

    unlists: bool

    def judge(self, verdicts: Sequence[Placed]) -> list[Rejudged]:
        """One for each of `verdicts`, in their order."""


class Rejudging:
    """What a rescan makes of verdicts: those of its tenants and decisions, judged by `judge` where nothing holds them.

    `tenants` and `only` are empty for all. What a moderator has said stays, whatever is judged: `overrides` are those
    in force.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        tenants: Collection[str] = (),
        only: Collection[RescanOnly] = (),
        overrides: Overrides | None = None,
    ) -> None:
        self._judge = judge
        self._tenants = frozenset(tenants)
        self._decisions = decisions_of(only)
        self._overrides = overrides if overrides is not None and len(overrides) else None

    def rejudge(self, verdicts: Sequence[Placed]) -> list[Rejudged]:
        """What becomes of `verdicts`, in their order; those that the rescan is not about are left out."""
        about = [placed for placed in verdicts if self._is_about(placed[1])]
        held = {offset: self._held(verdict) for offset, verdict in about}
        judged = {each.offset: each for each in self._judge.judge([each for each in about if not held[each[0]]])}
        return [
            judged[offset] if offset in judged else _rejudged(offset, verdict, held=held[offset])
            for offset, verdict in about
        ]

    def _is_about(self, verdict: KeptVerdict) -> bool:
        if is_withdrawn(verdict):
            return False
        if self._tenants and verdict.tenant not in self._tenants:
            return False
        return self._decisions is None or verdict.decision in self._decisions

    def _held(self, verdict: KeptVerdict) -> str:
        if verdict.stage is Stage.OVERRIDE:
            return HELD_BY_OVERRIDE
        if is_of_list(verdict) and not self._judge.unlists:
            return HELD_BY_LIST
        if self._overrides is None:
            return ""
        looks = looks_of(zip(verdict.pdq, verdict.pdq_quality, strict=False))
        return HELD_BY_OVERRIDE if self._overrides.of_image(verdict.tenant, verdict.sha256, looks) else ""


_DECISION = {
    RescanOnly.ACCEPTED: Decision.ACCEPT,
    RescanOnly.REVIEW: Decision.REVIEW,
    RescanOnly.REJECTED: Decision.REJECT,
}


def decisions_of(only: Collection[RescanOnly]) -> frozenset[Decision] | None:
    """The decisions that a rescan is limited to, None for any."""
    return frozenset(_DECISION[each] for each in only if each in _DECISION) if only else None


class ScoreJudge:
    """Judges by the scores that verdicts keep.

    `policies` are by tenant, `EVERY_TENANT`'s for those without one. Where `models` (ids by name) names a model, only
    scores by the model of that id count.
    """

    unlists = False

    def __init__(self, policies: Mapping[str, Policy], models: Mapping[str, str] | None = None) -> None:
        self._policies = policies
        self._models = models or {}

    def judge(self, verdicts: Sequence[Placed]) -> list[Rejudged]:
        """One for each of `verdicts`; held where a score is not kept, or is another model's."""
        judged = []
        for offset, verdict in verdicts:
            policy = _policy_of(self._policies, verdict.tenant)
            judgement = None
            if policy is not None and self._may_judge(policy, verdict):
                judgement = judge_kept(policy, verdict)
            if policy is None or judgement is None:
                judged.append(_rejudged(offset, verdict, held=INCOMPLETE))
            else:
                judged.append(_judged(offset, verdict, policy, judgement))
        return judged

    def _may_judge(self, policy: Policy, verdict: KeptVerdict) -> bool:
        return not self._models or all(
            verdict.models.get(model) == self._models[model] for model in policy.models if model in self._models
        )


class ConceptScores:
    """The scores that policies' concepts have in the vectors of topic features.

    `concepts` are by policy id (`scanner.concepts.Concepts.prepare_all`), `models` the ids of the models whose vectors
    count, by name: those of any other are never looked at. Keeps a few bytes an image, not the vectors.
    """

    def __init__(self, concepts: Mapping[str, PolicyConcepts], models: Mapping[str, str]) -> None:
        self._concepts = concepts
        self._models = models
        self._scores: dict[tuple[str, str, str], bytes] = {}
        self.of_other_models = 0

    def take(self, features: FeaturesExtracted) -> None:
        """Take in the vectors of one image; those of another model are counted in `of_other_models`."""
        if self._models.get(features.model) != features.model_id:
            self.of_other_models += 1
            return
        vectors = np.frombuffer(b"".join(features.vectors), "<f2").reshape(-1, features.dimensions).astype(np.float32)
        for policy, concepts in self._concepts.items():
            if features.model in concepts.by_model:
                _, texts = concepts.by_model[features.model]
                scores = np.clip(vectors @ texts.T, 0.0, 1.0).astype(np.float32)
                self._scores[policy, features.model, features.scan_id] = scores.tobytes()

    def of(self, policy: str, scan_id: str) -> list[dict[str, float]] | None:
        """The scores of each frame by all of a policy's concepts; None where some model's vectors are not kept."""
        frames: list[dict[str, float]] = []
        for model, (names, _) in self._concepts[policy].by_model.items():
            kept = self._scores.get((policy, model, scan_id))
            if kept is None:
                return None
            rows = np.frombuffer(kept, np.float32).reshape(-1, len(names)).tolist()
            frames = frames or [{} for _ in rows]
            if len(frames) != len(rows):
                return None  # the vectors of two models are of different frames: nothing can be said of both together
            for frame, row in zip(frames, rows, strict=True):
                frame.update((f"{model}/{name}", score) for name, score in zip(names, row, strict=True))
        return frames


class VectorJudge:
    """Judges by concepts' scores from vectors, frame by frame where a policy asks for nothing else.

    A policy that asks for classifiers' scores too is judged by the highest of all frames, which is what verdicts keep.
    A concept's score is never taken from a verdict: it may be of other prompts under the same name.
    """

    unlists = False

    def __init__(self, policies: Mapping[str, Policy], concepts: ConceptScores) -> None:
        self._policies = policies
        self._concepts = concepts

    def judge(self, verdicts: Sequence[Placed]) -> list[Rejudged]:
        """One for each of `verdicts`; held where vectors or scores are not kept."""
        return [self._judge(offset, verdict) for offset, verdict in verdicts]

    def _judge(self, offset: int, verdict: KeptVerdict) -> Rejudged:
        policy = _policy_of(self._policies, verdict.tenant)
        frames = None if policy is None else self._concepts.of(policy.id, verdict.scan_id)
        if policy is None or frames is None:
            return _rejudged(offset, verdict, held=INCOMPLETE)
        if not frames or not policy.scores <= frames[0].keys():
            highest = {name: max(frame[name] for frame in frames) for name in (frames[0] if frames else ())}
            others = {name: score for name, score in verdict.scores.items() if not _is_concept(policy, name)}
            if not policy.scores <= highest.keys() | others.keys():
                return _rejudged(offset, verdict, held=INCOMPLETE)
            frames = [highest | others]
        judgement = policy.judge(frames, media_kind(verdict.media_type, verdict.frame_count))
        scores = {name: round(score, _DIGITS) for name, score in judgement.scores.items() if _is_concept(policy, name)}
        return _judged(offset, verdict, policy, judgement, scores=scores)


Search = Callable[[LoadedList, Sequence[bytes]], Mapping[int, int]]
"""The PDQ hashes that are near to some of a list's: the place of each among those asked for, and how many bits off."""


class HashJudge:
    """Judges by known-hash lists: what a gateway would make of the image, were it sent now.

    An image on no list keeps its decision, unless a list was all that had decided: then it is held, as nothing is
    known of it. `search` looks hashes up, many at a time, turned or mirrored as the picture may be.
    """

    unlists = True

    def __init__(self, lists: Sequence[LoadedList], search: Search) -> None:
        self._lists = lists
        self._search = search

    def judge(self, verdicts: Sequence[Placed]) -> list[Rejudged]:
        """One for each of `verdicts`."""
        wanted: list[bytes] = []
        asked: list[tuple[int, int]] = []
        for number, (_, verdict) in enumerate(verdicts):
            for frame, (digest, quality) in enumerate(zip(verdict.pdq, verdict.pdq_quality, strict=False)):
                if quality >= QUALITY_LEAST:
                    wanted.append(digest)
                    asked.append((number, frame))
        matches: list[list[Match]] = [[] for _ in verdicts]
        for each in self._lists:
            if len(each.sha256):
                for number, (_, verdict) in enumerate(verdicts):
                    if verdict.sha256 in each.sha256:
                        matches[number].append(each.match(HashKind.SHA256))
            if wanted and len(each.pdq):
                for place, distance in self._search(each, wanted).items():
                    number, frame = asked[place]
                    matches[number].append(each.match(HashKind.PDQ, distance=distance, frame=frame))
        return [self._judge(offset, verdict, found) for (offset, verdict), found in zip(verdicts, matches, strict=True)]

    def _judge(self, offset: int, verdict: KeptVerdict, matches: Sequence[Match]) -> Rejudged:
        match = strongest(matches)
        if match is None:
            if is_of_list(verdict):
                return _rejudged(offset, verdict, held=HELD_BY_LIST)
            return _rejudged(offset, verdict, after=verdict.decision)
        if not is_of_list(verdict) and STRENGTH[match.decision] <= STRENGTH[verdict.decision]:
            return _rejudged(offset, verdict, after=verdict.decision)
        rule = RuleFired(name=f"list:{match.name}", decision=match.decision, frame=match.frame)
        return _rejudged(
            offset,
            verdict,
            after=match.decision,
            rules=(rule,),
            worst_frame=match.frame,
            hash_list=f"{match.name}@{match.version}",
        )


def _policy_of(policies: Mapping[str, Policy], tenant: str) -> Policy | None:
    return policies.get(tenant) or policies.get(EVERY_TENANT)


def _is_concept(policy: Policy, score: str) -> bool:
    return score.partition("/")[0] in policy.concepts


def _judged(
    offset: int, verdict: KeptVerdict, policy: Policy, judgement: Judgement, scores: dict[str, float] | None = None
) -> Rejudged:
    return _rejudged(
        offset,
        verdict,
        after=judgement.decision,
        rules=judgement.rules,
        scores=scores or {},
        worst_frame=judgement.worst_frame,
        policy=policy.id,
    )


def _rejudged(
    offset: int,
    verdict: KeptVerdict,
    *,
    after: Decision | None = None,
    held: str = "",
    rules: tuple[RuleFired, ...] = (),
    scores: dict[str, float] | None = None,
    worst_frame: int = 0,
    policy: str = "",
    hash_list: str = "",
) -> Rejudged:
    return Rejudged(
        offset=offset,
        scan_id=verdict.scan_id,
        tenant=verdict.tenant,
        sha256=verdict.sha256,
        before=verdict.decision,
        after=after,
        held=held,
        rules=rules,
        scores=scores or {},
        worst_frame=worst_frame,
        policy=policy,
        hash_list=hash_list,
    )
