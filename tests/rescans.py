"""Rescans over the invented fediverse of `tests.fediverse`, written into its store through the real recorder."""

import random
from collections.abc import Iterable
from typing import Final

from federation_audit.store.engine import Store
from federation_audit.store.recorder import Recorder
from schemas.messages import (
    Decision,
    Message,
    Rejudged,
    RescanJudged,
    RescanOrdered,
    RescanSpan,
    RescanState,
    RescanTier,
    RuleFired,
)
from schemas.topics import DAY_MS
from tests.fediverse import Filled
from tests.stores import FAR_BACK, received

MODEL, POLICY, LISTS = "20261127-091500-7c1e", "20261128-084210-4f02", "20261120-220005-b9d3"
"""A rescan of frames that is finished, one of scores at work, and one of hashes that was carried out."""

_RECORDS: Final = 41_200
_ACCEPT, _REVIEW, _REJECT = Decision.ACCEPT, Decision.REVIEW, Decision.REJECT


def fill_rescans(store: Store, filled: Filled, *, now: int) -> dict[str, RescanOrdered]:
    """Write them, as of `now` (milliseconds since the epoch), and return them by id."""
    jobs = [
        _job(
            MODEL,
            RescanTier.FRAMES,
            RescanState.FINISHED,
            now - 90_000_000,
            why="a model has to see the frames again: scores of falconsai:1 say nothing of falconsai:2.",
            models={"falconsai": "falconsai:2", "marqo": "marqo:1"},
            policies={"default": ""},
            ordered_by="ada",
            changed_by="scanner-1",
            changed_at=now - 88_000_000,
        ),
        _job(
            POLICY,
            RescanTier.SCORES,
            RescanState.RUNNING,
            now - 300_000,
            why="the policy asks for scores that verdicts keep.",
            policies={"default": ""},
            spans=(RescanSpan(topic="verdicts", partition=0, begin=0, end=_RECORDS),),
            ordered_by="ada",
        ),
        _job(
            LISTS,
            RescanTier.HASHES,
            RescanState.APPLIED,
            now - 8 * DAY_MS,
            why="a known-hash list was refreshed; verdicts keep the hashes.",
            lists={"known-hashes": "8"},
            tenants=("default",),
            ordered_by="fediwarden",
            changed_by="ada",
            changed_at=now - 7 * DAY_MS,
        ),
    ]
    messages: list[Message] = [*jobs, *_of_model(filled, now - 88_000_000), *_of_policy(filled, now - 60_000)]
    recorder = Recorder(store, holder="rescans", retention_days=FAR_BACK)
    recorder.record(received(messages), {}, lag=0)
    recorder.release()
    return {job.rescan: job for job in jobs}


def _job(rescan: str, tier: RescanTier, state: RescanState, at: int, **more: object) -> RescanOrdered:
    fields = {"rescan": rescan, "tier": tier, "state": state, "since": at - 7 * DAY_MS, "until": at, "spans": ()}
    return RescanOrdered.model_validate(fields | {"ordered_at": at, "changed_at": at} | more)


def _of_model(filled: Filled, at: int) -> Iterable[RescanJudged]:
    """A better model: most of what was flagged for nothing is let in, and some that was let in is bad."""
    chance = random.Random(7)
    bad = {sha256 for files in filled.confirmed.values() for sha256 in files}
    flagged = {sha256 for files in filled.flagged.values() for sha256 in files}
    for place, (domain, media) in enumerate(sorted(filled.media.items())):
        images = []
        for offset, sha256 in enumerate(media):
            if sha256 in bad or chance.random() < (0.03 if domain == "drawings.example" else 0.004):
                after: Decision | None = _REJECT
            else:
                after = chance.choice([_ACCEPT, _ACCEPT, _REVIEW]) if sha256 in flagged else _ACCEPT
            held = "unreadable" if chance.random() < 0.002 else ""
            images.append(_say(sha256, offset, None, None if held else after, held))
        yield _batch(MODEL, "images.archive", images, at + place * 20_000)


def _of_policy(filled: Filled, at: int) -> Iterable[RescanJudged]:
    """A third of the verdicts, in a policy that sends less to review."""
    media = [sha256 for _, files in sorted(filled.media.items()) for sha256 in files]
    chance = random.Random(8)
    images = []
    for offset, sha256 in enumerate(media[: len(media) // 3]):
        before = chance.choices([_ACCEPT, _REVIEW, _REJECT], [95, 3, 2])[0]
        after = _ACCEPT if before is _REVIEW and chance.random() < 0.5 else before
        images.append(_say(sha256, offset, before, after, "override" if chance.random() < 0.003 else ""))
    for first in range(0, len(images), 500):
        yield _batch(POLICY, "verdicts", images[first : first + 500], at + first)


def _say(sha256: bytes, offset: int, before: Decision | None, after: Decision | None, held: str) -> Rejudged:
    rule = {_REJECT: "explicit", _REVIEW: "doubtful"}.get(after) if after else None
    return Rejudged(
        offset=offset,
        scan_id=f"scan-{sha256.hex()[:10]}",
        tenant="default",
        sha256=sha256,
        before=before,
        after=after,
        held=held,
        rules=(RuleFired(name=rule, decision=after, frame=0),) if rule and after else (),
        policy="default-cpu:2",
    )


def _batch(rescan: str, topic: str, images: Iterable[Rejudged], at: int) -> RescanJudged:
    return RescanJudged(
        rescan=rescan, topic=topic, partition=0, begin=0, end=1_000_000, images=tuple(images)[:500], judged_at=at
    )
