"""The rescans as they stand: ordered, found by their id, moved from state to state.

The topic rescan.jobs has one partition, and the newest record of a rescan counts. States go one way, but for two: a
cancelled rescan may be taken up again, and one that was undone may be applied again.
"""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import structlog

from fediwarden.rescan.errors import RescanBusy, RescanNotFinished, RescanStateWrong, RescanUnknown
from schemas.broker import BrokerSettings, Producer, Received, check_topics, read_history
from schemas.clock import now_ms
from schemas.messages import RescanOrdered, RescanState
from schemas.topics import RESCAN_JOBS

log = structlog.get_logger("fediwarden.rescan")

CLIENT_ID: Final = "fediwarden-rescan"
_PUBLISH_WITHIN_S = 30.0

AT_WORK: Final = frozenset({RescanState.RUNNING, RescanState.APPLYING, RescanState.UNDOING})
"""Of these, only one rescan may stand at a time."""

_NEXT: Final[Mapping[RescanState, frozenset[RescanState]]] = {
    RescanState.RUNNING: frozenset({RescanState.FINISHED, RescanState.CANCELLED}),
    RescanState.CANCELLED: frozenset({RescanState.RUNNING}),
    RescanState.FINISHED: frozenset({RescanState.APPLYING}),
    RescanState.APPLYING: frozenset({RescanState.APPLIED, RescanState.UNDOING}),
    RescanState.APPLIED: frozenset({RescanState.UNDOING}),
    RescanState.UNDOING: frozenset({RescanState.UNDONE}),
    RescanState.UNDONE: frozenset({RescanState.APPLYING}),
}


class Jobs:
    """Every rescan there is. `observe` is handed each record of rescan.jobs, from its beginning."""

    def __init__(self) -> None:
        self._jobs: dict[str, RescanOrdered] = {}
        self._stands_at: dict[str, int] = {}

    def observe(self, received: Received) -> None:
        """Take in one record of the topic; what is none of its messages is logged and passed over."""
        job, key = received.message, (received.key or b"").decode("ascii", "replace")
        if isinstance(job, RescanOrdered) and job.rescan == key:
            self._jobs[key] = job
            self._stands_at[key] = received.offset
        elif job is None and received.fault is None:
            self._jobs.pop(key, None)
        else:
            fault = str(received.fault or "a record whose key is not its rescan's id")
            log.warning("rescan_unreadable", offset=received.offset, fault=fault)

    def all(self) -> list[RescanOrdered]:
        """Every rescan, the one that was ordered last first."""
        return sorted(self._jobs.values(), key=lambda job: (job.ordered_at, job.rescan), reverse=True)

    def get(self, rescan_id: str) -> RescanOrdered:
        """The rescan of this id. Raises `RescanUnknown`."""
        job = self._jobs.get(rescan_id)
        if job is None:
            latest = ", ".join(each.rescan for each in self.all()[:3]) or "none"
            raise RescanUnknown(f"no rescan has the id {rescan_id!r}; the latest: {latest} (fediwarden rescan list)")
        return job

    def at_work(self, *, but: str = "") -> RescanOrdered | None:
        """The rescan that is being judged, applied or undone, `but` aside; of several, which should not be, the first.

        It says nothing about whether somebody really works on it: whoever did may have been killed.
        """
        busy = [job for job in self._jobs.values() if job.state in AT_WORK and job.rescan != but]
        return min(busy, key=lambda job: self._stands_at[job.rescan], default=None)

    def stands_before(self, one: str, other: str) -> bool:
        """Whether the record that counts of `one` is older than that of `other`."""
        return self._stands_at[one] < self._stands_at[other]


def new_rescan_id(at_ms: int) -> str:
    """An id for a rescan that is ordered then: ``YYYYMMDD-HHMMSS-xxxx``, in UTC."""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


async def read_jobs(broker: BrokerSettings) -> Jobs:
    """Every rescan as it stands now. Raises a `schemas.broker.BrokerError`."""
    await check_topics(broker, (RESCAN_JOBS,))
    jobs = Jobs()
    await read_history(broker, (RESCAN_JOBS,), since_ms=0, on_record=jobs.observe, client_id=CLIENT_ID)
    return jobs


async def publish_job(producer: Producer, job: RescanOrdered) -> None:
    """Make `job` what stands of its rescan, whatever stood before. Raises a `schemas.broker.BrokerError`."""
    await producer.publish(RESCAN_JOBS, job, key=job.rescan.encode("ascii"), give_up_after=_PUBLISH_WITHIN_S)


async def order_job(broker: BrokerSettings, producer: Producer, job: RescanOrdered) -> None:
    """Put a new rescan on record. Raises `RescanBusy` where another is at work, or a `schemas.broker.BrokerError`.

    Of two that are ordered at the same time the one that stands first in the topic goes on, the other is cancelled.
    """
    _refuse_busy(await read_jobs(broker), job.rescan)
    await publish_job(producer, job)
    jobs = await read_jobs(broker)
    other = jobs.at_work(but=job.rescan)
    if other is not None and jobs.stands_before(other.rescan, job.rescan):
        note = f"{other.rescan} was ordered at the same time"
        await publish_job(producer, _changed(job, RescanState.CANCELLED, "fediwarden", note))
        raise _busy(other)


async def change_state(
    broker: BrokerSettings,
    producer: Producer,
    rescan_id: str,
    state: RescanState,
    *,
    by: str,
    note: str = "",
    most_removals: int | None = None,
) -> RescanOrdered:
    """Move a rescan on to `state`, and return it as it stands then; where it is there already nothing is published.

    `most_removals`, where given, is written into the job. Raises `RescanUnknown`, `RescanNotFinished`,
    `RescanStateWrong`, `RescanBusy` (another is at work, and this one would be), or a `schemas.broker.BrokerError`.
    """
    jobs = await read_jobs(broker)
    job = jobs.get(rescan_id)
    if job.state is state:
        return job
    check_change(job, state)
    if state in AT_WORK:
        _refuse_busy(jobs, rescan_id)
    changed = _changed(job, state, by, note)
    if most_removals is not None:
        changed = changed.model_copy(update={"most_removals": most_removals})
    await publish_job(producer, changed)
    return changed


def check_change(job: RescanOrdered, state: RescanState) -> None:
    """Raise `RescanNotFinished` or `RescanStateWrong` where `job` cannot go on to `state`."""
    if state in _NEXT[job.state]:
        return
    if job.state is RescanState.RUNNING:
        raise RescanNotFinished(
            f"rescan {job.rescan} is not finished: `fediwarden rescan show {job.rescan}` says how far it is, "
            f"`fediwarden rescan resume {job.rescan}` goes on where nobody works on it"
        )
    allowed = [before.value for before, after in _NEXT.items() if state in after]
    raise RescanStateWrong(
        f"rescan {job.rescan} is {job.state.value}; only one that is {' or '.join(allowed)} can become {state.value}"
    )


def _changed(job: RescanOrdered, state: RescanState, by: str, note: str) -> RescanOrdered:
    changes = {"state": state, "changed_by": by[:100], "changed_at": now_ms(), "note": note[:500]}
    return job.model_copy(update=changes)


def _refuse_busy(jobs: Jobs, rescan_id: str) -> None:
    if (other := jobs.at_work(but=rescan_id)) is not None:
        raise _busy(other)


def _busy(other: RescanOrdered) -> RescanBusy:
    doing = {RescanState.APPLYING: "apply", RescanState.UNDOING: "undo"}.get(other.state, "resume")
    remedy = f"`fediwarden rescan {doing} {other.rescan}` goes on with it where nobody does"
    if other.state is RescanState.RUNNING:
        remedy += f", `fediwarden rescan cancel {other.rescan}` ends it"
    return RescanBusy(f"rescan {other.rescan} is {other.state.value}, and one is at work at a time; {remedy}")
