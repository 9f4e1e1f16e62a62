"""Audit stores for tests, and the messages that go into them."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from federation_audit.store.dump import dump_lines
from federation_audit.store.engine import Store
from federation_audit.store.migrating import migrate
from federation_audit.store.recorder import Recorder
from schemas.broker import Received
from schemas.messages import (
    ActorForgotten,
    AnsweredBy,
    AnswerGiven,
    Confidence,
    Decision,
    EnforcementOutcome,
    EnforcementReported,
    ImageFailed,
    Message,
    OriginAuthor,
    OriginCommunity,
    OriginHost,
    OriginMethod,
    OriginMoment,
    OriginObserved,
    Place,
    Rejudged,
    RescanJudged,
    RescanOrdered,
    RescanState,
    RescanTier,
    RuleFired,
    Stage,
    Verdict,
)
from schemas.topics import (
    ANSWERS,
    DAY_MS,
    ENFORCEMENTS,
    IMAGES_DEAD,
    ORIGINS,
    RESCAN_JOBS,
    RESCANS,
    VERDICTS,
    TopicSpec,
)

TOPIC_OF: dict[type[Message], TopicSpec] = {
    Verdict: VERDICTS,
    AnswerGiven: ANSWERS,
    OriginObserved: ORIGINS,
    ActorForgotten: ORIGINS,
    EnforcementReported: ENFORCEMENTS,
    ImageFailed: IMAGES_DEAD,
    RescanOrdered: RESCAN_JOBS,
    RescanJudged: RESCANS,
}
NOON = 20_000 * DAY_MS + DAY_MS // 2
"""Noon of day 20,000 (2024-10-04)."""

FAR_BACK = 20_000
"""A retention, in days, that lets everything count."""


def sha(image: int) -> bytes:
    return hashlib.sha256(f"image {image}".encode()).digest()


def pdq(image: int, *, off: int = 0) -> bytes:
    """A hash of its own for each image, with so many of its first bits turned."""
    bits = int.from_bytes(hashlib.sha256(f"look {image}".encode()).digest(), "big") ^ ((1 << off) - 1)
    return bits.to_bytes(32, "big")


def judged(
    image: int,
    decision: Decision = Decision.ACCEPT,
    *,
    at: int = NOON,
    policy: str = "p1",
    tenant: str = "default",
    looks: Sequence[bytes] | None = None,
    quality: int = 100,
    stage: Stage = Stage.LIVE,
    hash_list: str = "",
    scan: str = "",
    came: int | None = None,
) -> Verdict:
    looks = [pdq(image)] if looks is None else looks
    by_model = stage is Stage.LIVE or (stage is Stage.RESCAN and not hash_list)
    rules = () if decision is Decision.ACCEPT else (RuleFired(name="explicit", decision=decision, frame=0),)
    return Verdict(
        scan_id=scan or f"scan-{image}-{at}",
        tenant=tenant,
        sha256=sha(image),
        decision=decision,
        rules=rules,
        scores={"m/nsfw": 0.5} if by_model else {},
        pdq=tuple(looks),
        pdq_quality=(quality,) * len(looks),
        models={"m": "m:1"} if by_model else {},
        policy=policy if by_model or stage is Stage.OVERRIDE else "",
        hash_list=hash_list,
        stage=stage,
        scanner="scanner-1",
        topic="",
        partition=0,
        offset=0,
        received_at=at if came is None else came,
        judged_at=at,
    )


def answered(
    image: int,
    by: AnsweredBy = AnsweredBy.VERDICT,
    *,
    at: int = NOON,
    accepted: bool = True,
    tenant: str = "default",
    milliseconds: float = 1.0,
) -> AnswerGiven:
    return AnswerGiven(
        scan_id=f"answer-{image}-{at}",
        tenant=tenant,
        sha256=sha(image),
        status=200 if accepted else 406,
        decision=Decision.ACCEPT if accepted else Decision.REJECT,
        answered_by=by,
        answered_at=at,
        milliseconds=milliseconds,
        accepted=accepted,
    )


def removed(
    image: int,
    *,
    at: int = NOON,
    after_ms: int = 0,
    aliases: Sequence[str] = (),
    outcome: EnforcementOutcome = EnforcementOutcome.REMOVED,
    tenant: str = "default",
) -> EnforcementReported:
    """What became of a file that was judged `after_ms` before `at`."""
    return EnforcementReported(
        scan_id=f"scan-{image}",
        tenant=tenant,
        sha256=sha(image),
        outcome=outcome,
        check=0,
        attempt=1,
        aliases=tuple(aliases),
        judged_at=at - after_ms,
        enforced_at=at,
    )


def failed(image: int, *, at: int = NOON) -> ImageFailed:
    return ImageFailed(
        scan_id=f"scan-{image}",
        tenant="default",
        sha256=sha(image),
        reason="model-failed",
        topic="",
        partition=0,
        offset=0,
        failed_at=at,
    )


def seen(
    image: int | None = None,
    author: str = "",
    *,
    actor: str = "",
    alias: str = "",
    url: str = "",
    community: str = "",
    host: str = "",
    post: str = "",
    at: int = NOON,
    posted: int | None = None,
    sure: Confidence = Confidence.CERTAIN,
    tenant: str = "default",
) -> OriginObserved:
    """An origin: by image number, alias or address; `actor` is any text that stands for one."""
    return OriginObserved(
        tenant=tenant,
        sha256=b"" if image is None else sha(image),
        alias=alias,
        url=url,
        place=Place.POST_LINK,
        method=OriginMethod.DATABASE,
        host=OriginHost(domain=host, confidence=sure) if host else None,
        author=OriginAuthor(
            instance=author,
            pseudonym=pseudonym(actor) if actor else b"",
            key_id="2024Q4" if actor else "",
            confidence=sure,
        )
        if author
        else None,
        community=OriginCommunity(instance=community, actor_id=f"https://{community}/c/x", confidence=sure)
        if community
        else None,
        moment=None if posted is None else OriginMoment(at=posted, confidence=Confidence.CERTAIN),
        post_url=post,
        observed_at=at,
    )


def pseudonym(actor: str) -> bytes:
    return hashlib.sha256(actor.encode()).digest()[:16]


def forgotten(actor: str, *, at: int = NOON) -> ActorForgotten:
    return ActorForgotten(pseudonym=pseudonym(actor), key_id="2024Q4", forgotten_at=at)


RESCAN = "20241005-120000-ab12"


def ordered(
    state: RescanState = RescanState.FINISHED,
    *,
    rescan: str = RESCAN,
    tier: RescanTier = RescanTier.SCORES,
    at: int = NOON + DAY_MS,
    **more: object,
) -> RescanOrdered:
    """A rescan of the images of the week before it was ordered."""
    fields = {"rescan": rescan, "tier": tier, "state": state, "since": at - 7 * DAY_MS, "until": at, "spans": ()}
    return RescanOrdered.model_validate(fields | {"ordered_at": at, "changed_at": at} | more)


def again(
    image: int,
    before: Decision | None = Decision.ACCEPT,
    after: Decision | None = Decision.ACCEPT,
    *,
    offset: int | None = None,
    held: str = "",
    rules: Sequence[str] = (),
    hash_list: str = "",
    tenant: str = "default",
) -> Rejudged:
    """What a rescan says of an image; the record that it was judged from stands at the image's number by default."""
    return Rejudged(
        offset=image if offset is None else offset,
        scan_id=f"scan-{image}",
        tenant=tenant,
        sha256=sha(image),
        before=before,
        after=after,
        held=held,
        rules=tuple(RuleFired(name=each, decision=Decision.REVIEW, frame=0) for each in rules),
        policy="p2",
        hash_list=hash_list,
    )


def rejudged(*images: Rejudged, rescan: str = RESCAN, at: int = NOON + DAY_MS) -> RescanJudged:
    return RescanJudged(
        rescan=rescan, topic="verdicts", partition=0, begin=0, end=1_000_000, images=images, judged_at=at
    )


def received(messages: Iterable[Message]) -> list[Received]:
    numbers = itertools.count()
    return [Received(TOPIC_OF[type(each)], 0, next(numbers), 0, b"", each, None, 1) for each in messages]


@contextmanager
def open_store(url: str) -> Iterator[Store]:
    """A store with its tables, made where they are missing."""
    with Store(url) as store:
        migrate(store)
        yield store


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'audit.sqlite'}"


def write(store: Store, *batches: Iterable[Message], retention_days: int = FAR_BACK) -> Recorder:
    recorder = Recorder(store, holder="test", retention_days=retention_days)
    for batch in batches:
        recorder.record(received(batch), {})
    return recorder


def content(store: Store) -> list[str]:
    with store.reading() as connection:
        return sorted(dump_lines(connection))
