"""Which rescan a scanner works on: its models', one that runs, the one ordered first."""

import asyncio

import pytest
from structlog.testing import capture_logs

from scanner.rescanning.jobs import Jobs
from schemas.broker import Received
from schemas.codec import SchemaUnknown
from schemas.messages import RescanOrdered, RescanState, RescanTier
from schemas.topics import RESCAN_JOBS

MODELS = {"red": "red-1"}


def ordered(
    rescan: str,
    state: RescanState = RescanState.RUNNING,
    *,
    at: int = 5,
    tier: RescanTier = RescanTier.FRAMES,
    models: dict[str, str] = MODELS,
) -> RescanOrdered:
    return RescanOrdered(
        rescan=rescan, tier=tier, state=state, since=0, until=9, spans=(), models=models, ordered_at=at, changed_at=at
    )


def record(job: RescanOrdered | None, key: str) -> Received:
    return Received(RESCAN_JOBS, 0, 0, 0, key.encode(), job, None, 0)


def following(*jobs: RescanOrdered) -> Jobs:
    followed = Jobs(MODELS)
    for job in jobs:
        followed.observe(record(job, job.rescan))
    return followed


async def chosen(jobs: Jobs) -> str | None:
    try:
        async with asyncio.timeout(0.01):
            return (await jobs.next()).rescan
    except TimeoutError:
        return None


@pytest.mark.parametrize(
    "job",
    [
        ordered("a", RescanState.CANCELLED),
        ordered("a", RescanState.FINISHED),
        ordered("a", tier=RescanTier.SCORES),
        ordered("a", models={"red": "red-2"}),
        ordered("a", models={**MODELS, "words": "words-1"}),
        ordered("a", models={}),
    ],
)
def test_what_does_not_run_or_is_for_others_is_let_be(job: RescanOrdered) -> None:
    assert asyncio.run(chosen(following(job))) is None


def test_the_one_that_was_ordered_first_comes_first() -> None:
    assert asyncio.run(chosen(following(ordered("b", at=7), ordered("c", at=6), ordered("d", at=8)))) == "c"


def test_what_was_dropped_comes_back_when_it_is_published_anew() -> None:
    async def run() -> list[str | None]:
        jobs = following(ordered("a"))
        jobs.drop(await jobs.next())
        seen = [await chosen(jobs)]
        jobs.observe(record(ordered("a", RescanState.CANCELLED), "a"))
        seen.append(await chosen(jobs))
        jobs.observe(record(ordered("a"), "a"))
        return [*seen, await chosen(jobs)]

    assert asyncio.run(run()) == [None, None, "a"]


@pytest.mark.parametrize("end", [ordered("a", RescanState.CANCELLED), ordered("a", RescanState.FINISHED), None])
def test_a_rescan_is_over_when_it_runs_no_more(end: RescanOrdered | None) -> None:
    async def run() -> None:
        jobs = following(ordered("a"))
        over = asyncio.create_task(jobs.over(await jobs.next()))
        jobs.observe(record(ordered("b"), "b"))
        await asyncio.sleep(0.01)
        assert not over.done()
        jobs.observe(record(end, "a"))
        await over

    asyncio.run(run())


def test_a_rescan_for_other_models_is_told_of_once() -> None:
    other = ordered("a", models={"red": "red-2"})
    with capture_logs() as logs:
        following(other, other, ordered("b", RescanState.FINISHED, models={"red": "red-2"}))
    assert [(line["event"], line["rescan"], line["asked"], line["loaded"]) for line in logs] == [
        ("rescan_is_for_other_models", "a", {"red": "red-2"}, MODELS)
    ]


def test_a_record_that_cannot_be_read_takes_no_rescan_off_the_record() -> None:
    jobs = following(ordered("a"))
    jobs.observe(Received(RESCAN_JOBS, 0, 1, 0, b"a", None, SchemaUnknown("rescan-ordered/9"), 1))
    assert asyncio.run(chosen(jobs)) == "a"
