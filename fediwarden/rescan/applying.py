"""Carrying a rescan out, and taking it back: what it decided becomes verdicts like any other, of stage rescan.

The state is on record before the first verdict is published, and every verdict names the one that it takes the place
of. So whoever is killed is followed by one who reads what stands and goes on, and two at once say the same twice.
Whatever was judged live in the meantime stands: just before each batch the newest verdicts are read once more, and a
rescan's verdict is as old as the rescan's judging, so that one that crosses with it is the newer of the two for all
who read them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from fediwarden.rescan.errors import TooManyRemovals
from fediwarden.rescan.jobs import change_state
from fediwarden.rescan.outcome import CLIENT_ID, Fate, Image, Outcome, Refuses, Step, Tally, read_tally
from schemas.broker import AssignedReader, BrokerSettings, BrokerUnavailable, Partition, Producer, Received
from schemas.messages import RescanOrdered, RescanState, RescanTier, RuleFired, Stage, Timings, Verdict
from schemas.topics import VERDICTS

RULE: Final = "hash-list"
"""The rule that a hit of a hash list goes by, where the rescan names none."""

SCANNER: Final = "rescan"

_BATCH = 100
_POLL_S = 0.2
_STALLED_AFTER_S = 30.0

OnProgress = Callable[[str, int, int], None]


def check_removals(outcome: Outcome, *, most_share: float, most_removals: int | None = None) -> None:
    """Raise `TooManyRemovals` where carrying `outcome` out would remove too much.

    `most_removals`, or else the rescan's own, is a number of images and alone counts where it is given; else no more
    than `most_share` of the images that it decides about may be removed.
    """
    given = outcome.job.most_removals if most_removals is None else most_removals
    removals, counted = outcome.removals, outcome.counted
    if given is not None:
        if removals > given:
            raise TooManyRemovals(
                f"{removals} images would be removed, and --max-removals allows {given}; look at "
                f"`fediwarden rescan report {outcome.job.rescan}`, and name a greater number if that is what you want"
            )
    elif removals > most_share * counted:
        raise TooManyRemovals(
            f"{removals} of {counted} images ({removals / counted:.1%}) would be removed, more than {most_share:.0%} "
            f"(setting rescan.max_removed_share); look at `fediwarden rescan report {outcome.job.rescan}`, and name "
            f"--max-removals {removals} if that is what you want"
        )


async def apply_rescan(
    broker: BrokerSettings,
    rescan_id: str,
    *,
    by: str,
    refuses: Refuses,
    most_removals: int | None = None,
    on_progress: OnProgress = lambda what, passed, of: None,
) -> Outcome:
    """Carry a rescan out, or go on with it, and return what it then comes to. It asks nobody: see `check_removals`.

    Images that are to be removed come first. Raises as `jobs.change_state` does, or a `BrokerError`.
    """
    async with Producer(broker, client_id=CLIENT_ID) as producer:
        job = await change_state(broker, producer, rescan_id, RescanState.APPLYING, by=by, most_removals=most_removals)
        outcome = await _carry_out(broker, producer, job, refuses, on_progress)
        await change_state(broker, producer, rescan_id, RescanState.APPLIED, by=by)
    return outcome


async def undo_rescan(
    broker: BrokerSettings,
    rescan_id: str,
    *,
    by: str,
    refuses: Refuses,
    on_progress: OnProgress = lambda what, passed, of: None,
) -> Outcome:
    """Put back what stood before a rescan was carried out, or go on with that, and return what it then comes to.

    Images that were removed are not brought back by it. One that was judged live since keeps that. Raises as
    `jobs.change_state` does, or a `BrokerError`.
    """
    async with Producer(broker, client_id=CLIENT_ID) as producer:
        job = await change_state(broker, producer, rescan_id, RescanState.UNDOING, by=by)
        outcome = await _carry_out(broker, producer, job, refuses, on_progress)
        await change_state(broker, producer, rescan_id, RescanState.UNDONE, by=by)
    return outcome


async def _carry_out(
    broker: BrokerSettings, producer: Producer, job: RescanOrdered, refuses: Refuses, on_progress: OnProgress
) -> Outcome:
    tally = await read_tally(broker, job, refuses=refuses, on_progress=on_progress)
    undo = job.state is RescanState.UNDOING
    open_ = [image for image in tally.images.values() if is_open(image, undo=undo)]
    rounds: tuple[list[Image], list[Image]] = ([], [])
    for image in open_:
        rounds[not _is_urgent(image, refuses, undo=undo)].append(image)
    starts = {Partition(VERDICTS, number): offset for number, offset in tally.next_offsets.items()}
    async with AssignedReader(broker, (VERDICTS,), starts=starts, client_id=CLIENT_ID, others_from_end=True) as news:
        passed = 0
        for images in rounds:
            async for batch in _read_bases(broker, images):
                await _catch_up(broker, news, tally)
                verdicts = [verdict_on(image, base, tally, job) for image, base in batch if is_open(image, undo=undo)]
                await asyncio.gather(*(producer.publish(VERDICTS, each, key=each.sha256) for each in verdicts))
                passed += len(batch)
                on_progress("and writing verdicts", passed, len(open_))
        await _catch_up(broker, news, tally)
    return tally.outcome()


def is_open(image: Image, *, undo: bool) -> bool:
    """Whether there is something to do about it."""
    if undo:  # whatever holds it by now: an override goes before both
        return image.step is Step.APPLIED and not image.overtaken
    return image.fate in (Fate.OPEN, Fate.UNDONE)


def verdict_on(image: Image, base: Verdict, tally: Tally, job: RescanOrdered) -> Verdict:
    """What is to stand of an image from now on; `base` is the verdict that the rescan replaces, or puts back.

    A hit of a hash list is one of the list alone, as a gateway's is; undone, the list lets the image be.
    """
    assert image.before is not None and image.after is not None, "it counts"
    undo = job.state is RescanState.UNDOING
    changes: dict[str, Any] = {
        "stage": Stage.RESCAN,
        "rescan": job.rescan,
        "scanner": SCANNER,
        "topic": VERDICTS.name,
        "partition": image.partition,
        "offset": image.stands_at,
        "judged_at": max(image.judged_at, image.stands_judged_at + 1),
        "timings": Timings(),
        "decision": image.before if undo else image.after,
    }
    if undo and (base.hash_list or not image.hash_list):
        pass  # all of it as it stood
    elif image.hash_list:
        rules = image.rules or (RuleFired(name=RULE, decision=image.after, frame=0),)
        changes |= {"hash_list": image.hash_list, "models": {}, "policy": "", "scores": {}, "worst_frame": 0}
        changes["rules"] = () if undo else rules
    else:
        changes |= {"rules": image.rules, "policy": image.policy or base.policy}
        changes["models"] = dict(tally.models_of(image, base))
        if image.scores[0]:
            kept = {} if job.tier is RescanTier.FRAMES else base.scores
            changes["scores"] = kept | dict(zip(*image.scores, strict=True))
            changes["worst_frame"] = image.worst_frame
    return base.model_copy(update=changes)


def _is_urgent(image: Image, refuses: Refuses, *, undo: bool) -> bool:
    """Whether the image is to be refused from now on, and was not."""
    before, after = (image.after, image.before) if undo else (image.before, image.after)
    assert before is not None and after is not None, "it counts"
    return refuses(image.tenant, after) and not refuses(image.tenant, before)


async def _read_bases(broker: BrokerSettings, images: Sequence[Image]) -> AsyncIterator[list[tuple[Image, Verdict]]]:
    """The verdicts that `images` are to be given another for, some at a time; those that are gone by now are left out.

    Raises `BrokerUnavailable` where nothing comes for half a minute.
    """
    wanted = {(image.partition, image.base_at): image for image in images}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for partition, offset in wanted:
        first[partition] = min(offset, first.get(partition, offset))
        last[partition] = max(offset, last.get(partition, offset))
    if not wanted:
        return
    starts = {Partition(VERDICTS, number): offset for number, offset in first.items()}
    batch: list[tuple[Image, Verdict]] = []
    async with AssignedReader(broker, (VERDICTS,), starts=starts, client_id=CLIENT_ID, others_from_end=True) as reader:
        while True:
            records = await _poll(broker, reader)
            for received in records:
                image = wanted.pop((received.partition, received.offset), None)
                if image is not None and isinstance(received.message, Verdict):
                    batch.append((image, received.message))
            if batch and (len(batch) >= _BATCH or not wanted):
                yield batch
                batch = []
            if not wanted:
                return
            at = await reader.positions()
            if all(at[Partition(VERDICTS, number)] > offset for number, offset in last.items()):
                if batch:
                    yield batch
                return


async def _catch_up(broker: BrokerSettings, news: AssignedReader, tally: Tally) -> None:
    """Take in every verdict that stands by now."""
    ends = await news.ends()
    while True:
        at = await news.positions()
        if all(at[partition] >= end for partition, end in ends.items()):
            return
        for received in await _poll(broker, news):
            tally.take_verdict(received)


async def _poll(broker: BrokerSettings, reader: AssignedReader) -> list[Received]:
    """What comes next; something must. Raises `BrokerUnavailable` where nothing does for half a minute."""
    give_up_at = asyncio.get_running_loop().time() + _STALLED_AFTER_S
    while not (records := await reader.poll(timeout_s=_POLL_S, most=_BATCH)):
        if asyncio.get_running_loop().time() > give_up_at:
            raise BrokerUnavailable(f"{broker.bootstrap_servers}: no verdicts came for {_STALLED_AFTER_S:g} s")
    return records
