"""An invented fediverse's messages for `bench.audit`: the same on every run."""

import hashlib
import random
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

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

HOUR_MS = 3_600_000
TENANT = "default"
MODELS = {"safety-s": "safety-s:0123456789abcdef", "open-nsfw": "open-nsfw:fedcba9876543210"}
POLICIES = ("default-cpu:0011223344556677", "default-cpu:8899aabbccddeeff")
SCORES = {"safety-s/nsfl": 0.01, "safety-s/nsfw": 0.97, "safety-s/sfw": 0.02, "open-nsfw/nsfw": 0.9}
RULE = "explicit"
KEY_ID = "2026Q4"
OBSERVER = "host-4713-abcdef"
DAYS = 300
_FLAGGED = 0.01
_EARLY = 0.2
_LATE_BY = 3_000


class Image(NamedTuple):
    """What chance said of an image: `rank` is its instance's by size, from 0; `account` the author's there; `early`,
    whether its origin comes before its verdict; `policy` the place in `POLICIES`. `at` is in ms."""

    number: int
    at: int
    rank: int
    account: int
    early: bool
    flagged: bool
    policy: int

    @property
    def sha256(self) -> bytes:
        """Of its bytes, as it were."""
        return hashlib.sha256(self.number.to_bytes(8, "big")).digest()

    @property
    def pseudonym(self) -> bytes:
        """Its author's."""
        return hashlib.sha256(f"{self.rank}/{self.account}".encode()).digest()[:16]


def draw(images: int, instances: int, *, first: int = 0, now: int | None = None) -> Iterator[Image]:
    """As many images, over 300 days up to `now` (ms). With `first`, they are numbered from there on and fall into the
    last hour instead: what comes on top of the first so many."""
    chance = random.Random(1 + first)
    now = now_ms() if now is None else now
    span = HOUR_MS if first else DAYS * DAY_MS
    step = span // max(1, images)
    for number in range(first, first + images):
        # Instances by a power law: the largest has a tenth of all images, most have a handful.
        rank = int(instances ** chance.random()) - 1
        account = chance.randrange(1 + 20_000 // (rank + 1))
        early, flagged = chance.random() < _EARLY, chance.random() < _FLAGGED
        policy = 0 if chance.random() < 0.7 else 1
        yield Image(number, now - span + (number - first) * step, rank, account, early, flagged, policy)


def invent(
    events: int, instances: int, *, first: int = 0, now: int | None = None
) -> Iterator[tuple[TopicSpec, Message]]:
    """Topic and message of about `events` events: for each image of `draw` a verdict, an answer and an origin."""
    late: deque[tuple[TopicSpec, Message]] = deque()
    for image in draw(events // 3, instances, first=first, now=now):
        sha256 = image.sha256
        origin = (ORIGINS, _origin(image, sha256))
        if image.early:
            yield origin
        else:
            late.append(origin)
        yield VERDICTS, _verdict(image, sha256)
        yield ANSWERS, _answer(image, sha256)
        if len(late) > _LATE_BY:
            yield late.popleft()
    yield from late


def domain_of(rank: int) -> str:
    """The instance of a rank."""
    return f"i{rank}.example"


def town_of(rank: int) -> str:
    """The instance of the communities that the authors of a rank post to."""
    return f"i{rank // 3}.example"


def community_of(rank: int) -> str:
    """The community that they post to."""
    return f"https://{town_of(rank)}/c/{rank % 50}"


def url_of(image: Image) -> str:
    """Where an image lies."""
    return f"https://{domain_of(image.rank)}/pictrs/image/{image.number:032x}.webp"


def post_of(image: Image) -> str:
    """The post that shows it."""
    return f"https://{domain_of(image.rank)}/post/{image.number}"


def scan_id_of(image: Image) -> str:
    """Its scan's."""
    return f"01JD{image.number:022d}"


def _verdict(image: Image, sha256: bytes) -> Verdict:
    decision = Decision.REJECT if image.flagged else Decision.ACCEPT
    return Verdict.model_construct(
        scan_id=scan_id_of(image),
        tenant=TENANT,
        sha256=sha256,
        decision=decision,
        rules=(RuleFired(name=RULE, decision=decision, frame=0),) if image.flagged else (),
        scores=SCORES,
        worst_frame=0,
        frame_count=1,
        pdq=(look_of(sha256),),
        pdq_quality=(100,),
        media_type="image/webp",
        length=123_456,
        models=MODELS,
        policy=POLICIES[image.policy],
        hash_list="",
        stage=Stage.LIVE,
        scanner="host-4711-abcdef",
        topic="fediwarden.images",
        partition=1,
        offset=image.number,
        received_at=image.at,
        judged_at=image.at + 200,
    )


def _answer(image: Image, sha256: bytes) -> AnswerGiven:
    return AnswerGiven.model_construct(
        scan_id=scan_id_of(image),
        tenant=TENANT,
        sha256=sha256,
        status=200,
        decision=Decision.ACCEPT,
        answered_by=AnsweredBy.VERDICT,
        reason="",
        length=123_456,
        media_type="image/webp",
        answered_at=image.at + 210,
        milliseconds=210.0,
        gateway="gateway-1",
        accepted=True,
        carried_by=scan_id_of(image),
    )


def _origin(image: Image, sha256: bytes) -> OriginObserved:
    domain = domain_of(image.rank)
    likely, certain = Confidence.LIKELY, Confidence.CERTAIN
    return OriginObserved.model_construct(
        tenant=TENANT,
        sha256=sha256,
        alias="",
        url=url_of(image),
        place=Place.POST_LINK,
        method=OriginMethod.DATABASE,
        host=OriginHost.model_construct(domain=domain, confidence=certain),
        author=OriginAuthor.model_construct(
            instance=domain, pseudonym=image.pseudonym, key_id=KEY_ID, confidence=certain
        ),
        community=OriginCommunity.model_construct(
            instance=town_of(image.rank), actor_id=community_of(image.rank), confidence=likely
        ),
        moment=OriginMoment.model_construct(at=image.at - 5_000, confidence=certain),
        post_url=post_of(image),
        observed_at=image.at + 5_000,
        observer=OBSERVER,
    )


def look_of(sha256: bytes) -> bytes:
    """Its PDQ: like that of no other."""
    return hashlib.sha256(sha256).digest()
