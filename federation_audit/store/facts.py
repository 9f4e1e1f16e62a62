"""What messages say, as facts that can be put together in any order.

Each fact has a time, and is either "the newest" of its key, or a member of a set whose latest time counts. `gather`
makes the facts of a batch; those older than the horizon are left out.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

from federation_audit.store.identities import ActorKey, MediaKey, NameKey, NameKind, StratumKey
from schemas.broker import Received
from schemas.domains import NotADomain, normalise_domain
from schemas.messages import (
    ActorForgotten,
    AnswerGiven,
    Confidence,
    Decision,
    EnforcementReported,
    ImageFailed,
    Message,
    OriginMethod,
    OriginObserved,
    Place,
    Stage,
    Verdict,
)
from schemas.topics import DAY_MS

Key = TypeVar("Key")

QUALITY_LEAST: Final = 50
"""PDQ hashes of a lower quality are not matched (FACTS)."""

FAILURES_DAYS: Final = 29
RESCANS_DAYS: Final = 89
"""Failures, and what rescans said, count for as long as their topics keep them, less a day for safety."""

DECISIONS: Final = (Decision.ACCEPT, Decision.REVIEW, Decision.REJECT)
LATEST: Final = 4_102_444_800_000
"""What claims a time from 2100 on is nonsense, and left out: no database and no calendar takes every number."""

INDEXED_MOST: Final = 2_000
"""Bytes of a text that stands in an index: PostgreSQL takes 2,704."""

FLAGGED_FROM: Final = 1
PLACES: Final = tuple(Place)
METHODS: Final = tuple(OriginMethod)
"""Decisions, places and methods stand in the store by their number here: new ones come last."""

_RANK: Final = {decision: number for number, decision in enumerate(DECISIONS)}
_SURENESS: Final = {Confidence.CERTAIN: 3, Confidence.LIKELY: 2, Confidence.POSSIBLE: 1}
_ANSWER: Final = {True: "accepted", False: "refused", None: "unknown"}
DENIED: Final = "denied"

RESCANNED: Final = "rescanned"
RELISTED: Final = "relisted"
RECEIVED: Final = "rescanned:received"
"""Marks of media that a rescan judged again: by a policy and models, by a hash list; and when the image had come."""


class Role(IntEnum):
    """What an instance was to an image."""

    AUTHOR = 1
    COMMUNITY = 2
    HOST = 3


class Judgement(NamedTuple):
    """The newest of these, compared field by field, counts. `rules` names what fired, by comma."""

    judged_at: int
    scan_id: str
    decision: int
    rules: str


class Flagging(NamedTuple):
    """A verdict of review or reject; `detail` is JSON: rules, scores."""

    at: int
    scan_id: str
    detail: str


class Origin(NamedTuple):
    """One origin's newest message; of two observed at one time, the one with the greater `tie` (a digest) counts.

    Sureness is 3 certain, 2 likely, 1 possible, 0 not known.
    """

    observed_at: int
    tie: int
    subject: MediaKey | NameKey
    place: int
    method: int
    host: str
    host_sure: int
    author: str
    author_sure: int
    actor: ActorKey | None
    community: str
    community_instance: str
    community_sure: int
    moment_at: int | None
    moment_sure: int
    post_url: str
    observer: str


@dataclass(slots=True)
class Facts:
    """The facts of some messages, put together."""

    judgements: dict[tuple[MediaKey, StratumKey], Judgement] = field(default_factory=dict)
    flaggings: dict[MediaKey, Flagging] = field(default_factory=dict)
    looks: dict[tuple[MediaKey, bytes], int] = field(default_factory=dict)
    marks: dict[tuple[MediaKey, str], int] = field(default_factory=dict)
    links: dict[tuple[MediaKey | NameKey, NameKey], int] = field(default_factory=dict)
    origins: dict[bytes, Origin] = field(default_factory=dict)
    forgotten: dict[ActorKey, int] = field(default_factory=dict)

    @property
    def media(self) -> set[MediaKey]:
        """Every medium that they speak of."""
        named = {key for key, _ in (*self.judgements, *self.marks)} | self.flaggings.keys()
        named |= {subject for subject, _ in self.links if isinstance(subject, MediaKey)}
        return named | {each.subject for each in self.origins.values() if isinstance(each.subject, MediaKey)}

    @property
    def names(self) -> set[NameKey]:
        """Every alias and address that they speak of."""
        named = {end for link in self.links for end in link if isinstance(end, NameKey)}
        return named | {each.subject for each in self.origins.values() if isinstance(each.subject, NameKey)}


class Horizon(NamedTuple):
    """What is older does not count: of failures, whose topic is kept for a month, and of everything else."""

    facts: int
    failures: int

    @property
    def rescans(self) -> int:
        """That of what rescans said, whose topic is kept for three months."""
        return max(self.facts, self.failures - (RESCANS_DAYS - FAILURES_DAYS) * DAY_MS)


def horizon_at(now: int, retention_days: int) -> Horizon:
    """The horizon of the UTC day that `now` is in."""
    day = now - now % DAY_MS
    return Horizon(max(0, day - retention_days * DAY_MS), max(0, day - min(retention_days, FAILURES_DAYS) * DAY_MS))


def gather(records: Iterable[Received], horizon: Horizon) -> Facts:
    """What `records` say that is not older than `horizon`. Records without a message say nothing."""
    facts = Facts()
    for record in records:
        message = record.message
        if message is not None and (take := _TAKERS.get(type(message))) is not None:
            take(facts, message, horizon.failures if isinstance(message, ImageFailed) else horizon.facts)
    return facts


def mark_of_answer(answer: AnswerGiven) -> str:
    """Such as ``answered:deadline:accepted``."""
    return f"answered:{answer.answered_by}:{_ANSWER[answer.accepted]}"


@lru_cache(maxsize=100_000)
def normal_domain(text: str) -> str:
    """`text` in the form of `schemas.domains`; "", which is not known, where it names no host."""
    try:
        return normalise_domain(text)
    except NotADomain:
        return ""


def _take_verdict(facts: Facts, verdict: Message, horizon: int) -> None:
    assert isinstance(verdict, Verdict)
    at = verdict.judged_at
    if not horizon <= at < LATEST:
        return
    media = MediaKey(verdict.tenant, verdict.sha256)
    if verdict.stage is Stage.OVERRIDE:
        if verdict.decision is not Decision.ACCEPT:
            _note(facts.marks, (media, DENIED), at)
        return
    if verdict.stage is Stage.RESCAN:
        _note(facts.marks, (media, RELISTED if verdict.hash_list else RESCANNED), at)
        if verdict.received_at >= horizon:
            _note(facts.marks, (media, RECEIVED), min(verdict.received_at, at))
    stratum = StratumKey(_models(tuple(verdict.models.items())), _plain(verdict.policy), _plain(verdict.hash_list))
    rank = _RANK[verdict.decision]
    rules = _rules(frozenset(rule.name for rule in verdict.rules))
    judgement = Judgement(at, _plain(verdict.scan_id), rank, rules)
    key = (media, stratum)
    if (known := facts.judgements.get(key)) is None or known < judgement:
        facts.judgements[key] = judgement
    if rank >= FLAGGED_FROM:
        flagging = Flagging(at, judgement.scan_id, _detail(verdict))
        if (before := facts.flaggings.get(media)) is None or before < flagging:
            facts.flaggings[media] = flagging
        for pdq, quality in zip(verdict.pdq, verdict.pdq_quality, strict=False):
            if quality >= QUALITY_LEAST:
                _note(facts.looks, (media, pdq), at)


def _take_answer(facts: Facts, answer: Message, horizon: int) -> None:
    assert isinstance(answer, AnswerGiven)
    if horizon <= answer.answered_at < LATEST:
        _note(facts.marks, (MediaKey(answer.tenant, answer.sha256), mark_of_answer(answer)), answer.answered_at)


def _take_enforcement(facts: Facts, report: Message, horizon: int) -> None:
    assert isinstance(report, EnforcementReported)
    at = report.enforced_at
    if not horizon <= at < LATEST:
        return
    media = MediaKey(report.tenant, report.sha256)
    _note(facts.marks, (media, f"enforced:{report.outcome}"), at)
    for alias in report.aliases:
        if alias:
            _note(facts.links, (media, NameKey(report.tenant, NameKind.ALIAS, _plain(alias))), at)


def _take_failure(facts: Facts, failure: Message, horizon: int) -> None:
    assert isinstance(failure, ImageFailed)
    named = failure.tenant and len(failure.sha256) == hashlib.sha256().digest_size
    if named and horizon <= failure.failed_at < LATEST:
        media = MediaKey(_plain(failure.tenant), failure.sha256)
        _note(facts.marks, (media, f"failed:{_plain(failure.reason)[:100]}"), failure.failed_at)


def _take_forgotten(facts: Facts, forgotten: Message, horizon: int) -> None:
    assert isinstance(forgotten, ActorForgotten)
    if horizon <= forgotten.forgotten_at < LATEST:
        _note(facts.forgotten, ActorKey(_plain(forgotten.key_id), forgotten.pseudonym), forgotten.forgotten_at)


def _take_origin(facts: Facts, origin: Message, horizon: int) -> None:
    assert isinstance(origin, OriginObserved)
    at = origin.observed_at
    if not horizon <= at < LATEST:
        return
    names: list[MediaKey | NameKey] = []
    if origin.sha256:
        names.append(MediaKey(origin.tenant, origin.sha256))
    if origin.alias:
        names.append(NameKey(origin.tenant, NameKind.ALIAS, _plain(origin.alias)))
    if origin.url:
        names.append(NameKey(origin.tenant, NameKind.URL, _plain(origin.url)))
    for other in names[1:]:  # to the surest name, which comes first
        assert isinstance(other, NameKey), "the hash comes first"
        _note(facts.links, (names[0], other), at)
    found = _as_origin(origin, names[0])
    known = facts.origins.get(origin.origin_id)
    if known is None or known[:2] < found[:2]:
        facts.origins[origin.origin_id] = found


def _as_origin(origin: OriginObserved, subject: MediaKey | NameKey) -> Origin:
    host, author, community = origin.host, origin.author, origin.community
    moment = origin.moment if origin.moment and origin.moment.at < LATEST else None
    host_domain = normal_domain(host.domain) if host else ""
    author_domain = normal_domain(author.instance) if author else ""
    community_domain = normal_domain(community.instance) if community else ""
    community_id = _plain(community.actor_id) if community and community_domain else ""
    actor = ActorKey(_plain(author.key_id), author.pseudonym) if author and author.pseudonym else None
    found = Origin(
        observed_at=origin.observed_at,
        tie=0,
        subject=subject,
        place=PLACES.index(origin.place),
        method=METHODS.index(origin.method),
        host=host_domain,
        host_sure=_SURENESS[host.confidence] if host and host_domain else 0,
        author=author_domain,
        author_sure=_SURENESS[author.confidence] if author and author_domain else 0,
        actor=actor if author_domain else None,
        community=community_id if len(community_id.encode()) <= INDEXED_MOST else "",  # that is no address
        community_instance=community_domain,
        community_sure=_SURENESS[community.confidence] if community and community_domain else 0,
        moment_at=moment.at if moment else None,
        moment_sure=_SURENESS[moment.confidence] if moment else 0,
        post_url=_plain(origin.post_url),
        observer=_plain(origin.observer)[:200],
    )
    digest = hashlib.sha256(repr(found).encode()).digest()
    return found._replace(tie=int.from_bytes(digest[:8], "big", signed=True))


def _note(latest: dict[Key, int], key: Key, at: int) -> None:
    if latest.get(key, -1) < at:
        latest[key] = at


@lru_cache(maxsize=1_000)
def _rules(names: frozenset[str]) -> str:
    """Joined by comma, in order; those that are too many for an index are left out (`Flagging.detail` has them all)."""
    text = ""
    for name in sorted(names):
        longer = f"{text},{_plain(name)}" if text else _plain(name)
        if len(longer.encode()) > INDEXED_MOST:
            break
        text = longer
    return text


@lru_cache(maxsize=1_000)
def _models(models: tuple[tuple[str, str], ...]) -> str:
    return _plain(json.dumps(dict(models), sort_keys=True, separators=(",", ":"))) if models else ""


def _detail(verdict: Verdict) -> str:
    rules = [{"name": rule.name, "decision": rule.decision.value, "frame": rule.frame} for rule in verdict.rules]
    scores = {name: round(score, 4) for name, score in sorted(verdict.scores.items())}
    detail = {"rules": rules, "scores": scores, "media_type": verdict.media_type, "length": verdict.length}
    return _plain(json.dumps(detail, separators=(",", ":")))


def _plain(text: str) -> str:
    """`text` as every database takes it: PostgreSQL has no NUL in texts."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text


_TAKERS = {
    Verdict: _take_verdict,
    AnswerGiven: _take_answer,
    EnforcementReported: _take_enforcement,
    ImageFailed: _take_failure,
    OriginObserved: _take_origin,
    ActorForgotten: _take_forgotten,
}
