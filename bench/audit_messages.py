"""An invented fediverse's messages for `bench.audit`: the same on every run."""

import hashlib
import random
from collections import deque
from collections.abc import Iterator

from schemas.clock import now_ms
from schemas.messages import (
    AnsweredBy,
    AnswerGiven,
    Confidence,
    Decision,
    Message,
    OriginAuthor,
    OriginCommunity,
    OriginHost,
    OriginMethod,
    OriginMoment,
    OriginObserved,
    Place,
    RuleFired,
    Stage,
    Verdict,
)
from schemas.topics import ANSWERS, DAY_MS, ORIGINS, VERDICTS, TopicSpec

_FLAGGED = 0.01
_EARLY = 0.2
_LATE_BY = 3_000
_MODELS = {"safety-s": "safety-s:0123456789abcdef", "open-nsfw": "open-nsfw:fedcba9876543210"}


def invent(events: int, instances: int) -> Iterator[tuple[TopicSpec, Message]]:
    """Topic and message of about `events` events: for each image a verdict, an answer and an origin."""
    chance = random.Random(1)
    begin = now_ms() - 300 * DAY_MS
    images = events // 3
    step = 300 * DAY_MS // max(1, images)
    late: deque[tuple[TopicSpec, Message]] = deque()
    for number in range(images):
        at = begin + number * step
        sha256 = hashlib.sha256(number.to_bytes(8, "big")).digest()
        # Instances by a power law: the largest has a tenth of all images, most have a handful.
        origin = (ORIGINS, _origin(chance, number, sha256, at, int(instances ** chance.random()) - 1))
        if chance.random() < _EARLY:
            yield origin
        else:
            late.append(origin)
        yield VERDICTS, _verdict(chance, number, sha256, at)
        yield ANSWERS, _answer(number, sha256, at)
        if len(late) > _LATE_BY:
            yield late.popleft()
    yield from late


def _verdict(chance: random.Random, number: int, sha256: bytes, at: int) -> Verdict:
    flagged = chance.random() < _FLAGGED
    decision = Decision.REJECT if flagged else Decision.ACCEPT
    policy = "default-cpu:0011223344556677" if chance.random() < 0.7 else "default-cpu:8899aabbccddeeff"
    return Verdict.model_construct(
        scan_id=f"01JD{number:022d}",
        tenant="default",
        sha256=sha256,
        decision=decision,
        rules=(RuleFired(name="explicit", decision=decision, frame=0),) if flagged else (),
        scores={"safety-s/nsfl": 0.01, "safety-s/nsfw": 0.97, "safety-s/sfw": 0.02, "open-nsfw/nsfw": 0.9},
        worst_frame=0,
        frame_count=1,
        pdq=(hashlib.sha256(sha256).digest(),),
        pdq_quality=(100,),
        media_type="image/webp",
        length=123_456,
        models=_MODELS,
        policy=policy,
        hash_list="",
        stage=Stage.LIVE,
        scanner="host-4711-abcdef",
        topic="fediwarden.images",
        partition=1,
        offset=number,
        received_at=at,
        judged_at=at + 200,
    )


def _answer(number: int, sha256: bytes, at: int) -> AnswerGiven:
    return AnswerGiven.model_construct(
        scan_id=f"01JD{number:022d}",
        tenant="default",
        sha256=sha256,
        status=200,
        decision=Decision.ACCEPT,
        answered_by=AnsweredBy.VERDICT,
        reason="",
        length=123_456,
        media_type="image/webp",
        answered_at=at + 210,
        milliseconds=210.0,
        gateway="gateway-1",
        accepted=True,
        carried_by=f"01JD{number:022d}",
    )


def _origin(chance: random.Random, number: int, sha256: bytes, at: int, rank: int) -> OriginObserved:
    domain = f"i{rank}.example"
    actor = hashlib.sha256(f"{rank}/{chance.randrange(1 + 20_000 // (rank + 1))}".encode()).digest()[:16]
    likely, certain = Confidence.LIKELY, Confidence.CERTAIN
    town = f"i{rank // 3}.example"
    return OriginObserved.model_construct(
        tenant="default",
        sha256=sha256,
        alias="",
        url=f"https://{domain}/pictrs/image/{number:032x}.webp",
        place=Place.POST_LINK,
        method=OriginMethod.DATABASE,
        host=OriginHost.model_construct(domain=domain, confidence=certain),
        author=OriginAuthor.model_construct(instance=domain, pseudonym=actor, key_id="2026Q4", confidence=certain),
        community=OriginCommunity.model_construct(
            instance=town, actor_id=f"https://{town}/c/{rank % 50}", confidence=likely
        ),
        moment=OriginMoment.model_construct(at=at - 5_000, confidence=certain),
        post_url=f"https://{domain}/post/{number}",
        observed_at=at + 5_000,
        observer="host-4713-abcdef",
    )
