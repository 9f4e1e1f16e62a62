"""The worker pool under planted faults: what goes wrong with one file must stay with it."""

import asyncio
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import uvloop
from PIL import Image

from gateway.frames.frame import FrameSet, Unreadable, UnreadableReason
from gateway.frames.pool import FramePool, PoolStopped
from gateway.frames.settings import FrameSettings
from tests import pictures, videos
from tests.unit.gateway.frames.planted import PLANTED


@asynccontextmanager
async def pool(*, extractor: str = PLANTED, **settings: object) -> AsyncIterator[FramePool]:
    frames = FramePool(FrameSettings.model_validate({"workers": 2, **settings}), extractor=extractor)
    await frames.start()
    try:
        yield frames
    finally:
        await frames.stop()


async def give(frames: FramePool, data: bytes) -> FrameSet:
    fd = os.memfd_create("upload")
    try:
        os.write(fd, data)
        return await frames.extract(fd, len(data))
    finally:
        os.close(fd)


async def refusal(frames: FramePool, data: bytes) -> Unreadable:
    with pytest.raises(Unreadable) as raised:
        await give(frames, data)
    return raised.value


def pid_of(found: FrameSet) -> int:
    return found.frames[0].at_ms


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    uvloop.run(main())


def ours() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_every_part_of_the_sandbox_is_on_and_named() -> None:
    async def work() -> None:
        async with pool() as frames:
            assert frames.ready
            assert frames.protections is not None
            assert frames.protections.complete, frames.protections.missing
            assert set(frames.protections.as_dict()) == {"limits", "no_new_privileges", "landlock", "seccomp"}

    run(work)


DENIED = [
    "read /etc/passwd",
    "write /tmp/fediwarden-escaped",
    "list /",
    "connect",
    "socketpair",
    "fork",
    "thread",
    "exec",
    "kill 1",
    "memfd",
    "code",
]


def test_a_worker_is_refused_what_no_decoder_needs_and_goes_on() -> None:
    async def work() -> None:
        async with pool(workers=1) as frames:
            before = pid_of(await give(frames, b"fine"))
            for deed in DENIED:
                stopped = await refusal(frames, deed.encode())
                assert stopped.reason is UnreadableReason.UNSUPPORTED, deed
                assert stopped.detail.startswith("stopped"), deed
                assert pid_of(await give(frames, b"fine")) == before

    run(work)
    assert not Path("/tmp/fediwarden-escaped").exists()


@pytest.mark.parametrize(
    ("deed", "reason", "detail"),
    [
        ("crash", UnreadableReason.DECODER_DIED, "SIGSEGV"),
        ("abort", UnreadableReason.DECODER_DIED, "SIGABRT"),
        ("exit", UnreadableReason.DECODER_DIED, "exit code 3"),
        ("hang", UnreadableReason.TOO_SLOW, "no answer within 0.5 s"),
        ("eat", UnreadableReason.TOO_MUCH_MEMORY, "more memory than allowed"),
    ],
)
def test_a_fault_gets_its_reason_and_the_next_file_a_worker(deed: str, reason: UnreadableReason, detail: str) -> None:
    async def work() -> None:
        async with pool(workers=1, wall_s=0.5 if deed == "hang" else 20, memory_mb=400) as frames:
            for _ in range(2):
                refused = await refusal(frames, deed.encode())
                assert refused.reason is reason, refused
                # On a busy machine the kernel's limit may come before our own clock.
                assert detail in refused.detail or (deed == "hang" and "processor time" in refused.detail)
                assert (await give(frames, b"fine")).media_type == "test/fine"

    run(work)


@pytest.mark.parametrize("turns", range(5))
def test_a_pool_ends_that_is_stopped_in_the_moment_it_gets_a_new_worker(turns: int) -> None:
    async def work() -> None:
        async with pool(workers=1) as frames:
            nursery = frames._nursery
            assert nursery is not None
            forked = await nursery.fork()
            asked, given = asyncio.Event(), asyncio.get_running_loop().create_future()

            async def fork() -> tuple[socket.socket, int, int]:
                asked.set()
                return await given

            nursery.fork = fork  # type: ignore[method-assign]
            await refusal(frames, b"crash")
            await asked.wait()
            given.set_result(forked)
            for _ in range(turns):
                await asyncio.sleep(0)
            async with asyncio.timeout(20):
                await frames.stop()

    run(work)


def test_nobody_else_notices_forty_faults_in_a_row() -> None:
    async def work() -> None:
        async with pool(workers=2) as frames:
            deeds = [b"crash", b"fine", b"exit", b"fine"] * 20
            answers = await asyncio.gather(*(give(frames, deed) for deed in deeds), return_exceptions=True)
            for deed, answer in zip(deeds, answers, strict=True):
                if deed == b"fine":
                    assert isinstance(answer, FrameSet)
                else:
                    assert isinstance(answer, Unreadable)
                    assert answer.reason is UnreadableReason.DECODER_DIED

    run(work)


def test_jobs_start_in_order_of_arrival() -> None:
    async def work() -> None:
        async with pool(workers=1) as frames:
            done: list[int] = []

            async def job(number: int) -> None:
                await give(frames, b"sleep 0.01")
                done.append(number)

            jobs = [asyncio.create_task(job(number)) for number in range(12)]
            await asyncio.sleep(0)
            assert (frames.busy, frames.queued) == (1, 11)
            await asyncio.gather(*jobs)
            assert done == list(range(12))
            assert (frames.busy, frames.queued) == (0, 0)

    run(work)


def test_a_caller_that_leaves_the_queue_takes_nobodys_place() -> None:
    async def work() -> None:
        async with pool(workers=1) as frames:
            first = asyncio.create_task(give(frames, b"sleep 0.1"))
            leaving = asyncio.create_task(give(frames, b"fine"))
            last = asyncio.create_task(give(frames, b"fine"))
            await asyncio.sleep(0.01)
            leaving.cancel()
            assert (await first).media_type == "test/sleep"
            assert (await last).media_type == "test/fine"
            assert leaving.cancelled()

    run(work)


@pytest.mark.parametrize("deed", [b"sleep 0.05", b"sleep 60"])
def test_a_caller_that_leaves_during_its_job_frees_the_worker(deed: bytes) -> None:
    async def work() -> None:
        async with pool(workers=1, wall_s=60) as frames:
            leaving = asyncio.create_task(give(frames, deed))
            await asyncio.sleep(0.01)
            leaving.cancel()
            async with asyncio.timeout(20):
                assert (await give(frames, b"fine")).media_type == "test/fine"
            assert leaving.cancelled()

    run(work)


def test_a_worker_is_replaced_after_its_number_of_jobs() -> None:
    async def work() -> None:
        async with pool(workers=1, jobs_per_worker=3) as frames:
            pids = [pid_of(await give(frames, b"fine")) for _ in range(7)]
            assert len(set(pids)) == 3
            assert pids[0] == pids[2] != pids[3] == pids[5] != pids[6]

    run(work)


def test_an_idle_worker_killed_from_outside_is_replaced_without_a_failed_job() -> None:
    async def work() -> None:
        async with pool(workers=2) as frames:
            victims = {pid_of(found) for found in await asyncio.gather(*(give(frames, b"sleep 0.05") for _ in "ab"))}
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            answers = await asyncio.gather(*(give(frames, b"fine") for _ in range(6)))
            assert victims.isdisjoint(map(pid_of, answers))

    run(work)


def test_the_pool_comes_back_when_the_process_that_forks_workers_is_killed() -> None:
    async def work() -> None:
        before = ours()  # the session's Kafka is a child of this process, too
        async with pool(workers=2) as frames:
            await give(frames, b"fine")
            with_workers = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
            for child in psutil.Process().children():
                if child.pid not in before:
                    child.kill()
            await asyncio.to_thread(psutil.wait_procs, with_workers, 10)
            answers = await asyncio.gather(*(give(frames, b"fine") for _ in range(4)))
            assert all(answer.media_type == "test/fine" for answer in answers)
            assert frames.ready

    run(work)


def test_no_picture_is_refused_because_the_process_that_forks_workers_is_killed() -> None:
    async def work() -> None:
        before = ours()
        async with pool(workers=4, wall_s=60) as frames:

            async def give_after(milliseconds: float) -> FrameSet:
                await asyncio.sleep(milliseconds / 1000)
                return await give(frames, b"fine")

            for busy in (0, 1, 2, 5) * 2:
                seen = await asyncio.gather(*(give(frames, b"sleep 0.1") for _ in "abcd"))
                victims = [psutil.Process(pid) for pid in set(map(pid_of, seen))]
                jobs = [asyncio.create_task(give(frames, b"sleep 0.3")) for _ in range(busy)]
                while frames.busy < min(busy, 4):
                    await asyncio.sleep(0.001)
                for child in psutil.Process().children():
                    if child.pid not in before:
                        child.kill()
                # While one worker after another ends; some are given to a worker that is about to.
                jobs += [asyncio.create_task(give_after(number / 2)) for number in range(10)]
                assert all(found.frames for found in await asyncio.gather(*jobs))
                _, alive = await asyncio.to_thread(psutil.wait_procs, victims, 60)
                assert not alive

    run(work)


def test_a_job_that_ends_the_process_that_forks_workers_each_time_is_given_up() -> None:
    async def work() -> None:
        before = ours()
        async with pool(workers=1, wall_s=60) as frames:
            job = asyncio.create_task(refusal(frames, b"sleep 50"))
            while not job.done():
                if frames.busy:
                    for child in psutil.Process().children():
                        if child.pid not in before:
                            child.kill()
                await asyncio.sleep(0.05)
            assert (await job).reason is UnreadableReason.DECODER_DIED
            assert (await give(frames, b"fine")).media_type == "test/fine"

    run(work)


def test_stopping_answers_everyone_and_leaves_no_process() -> None:
    async def work() -> None:
        before = ours()
        async with pool(workers=2, wall_s=60) as frames:
            jobs = [asyncio.create_task(give(frames, b"sleep 60")) for _ in range(5)]
            await asyncio.sleep(0.05)
            assert len(ours() - before) == 3
            await frames.stop()
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            assert all(isinstance(outcome, PoolStopped) for outcome in outcomes), outcomes
            assert ours() == before
            with pytest.raises(PoolStopped):
                await give(frames, b"fine")

    run(work)


def test_no_process_outlives_a_gateway_that_is_killed() -> None:
    script = """
        import asyncio, os, psutil
        from gateway.frames.pool import FramePool
        from gateway.frames.settings import FrameSettings

        async def main():
            pool = FramePool(FrameSettings(workers=2))
            await pool.start()
            print(*[p.pid for p in psutil.Process().children(recursive=True)], flush=True)
            await asyncio.sleep(600)

        asyncio.run(main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    ) as gateway:
        assert gateway.stdout is not None
        lines = (line for line in gateway.stdout if line.replace(" ", "").strip().isdigit())
        processes = [psutil.Process(int(pid)) for pid in next(lines).split()]
        assert len(processes) == 3
        gateway.kill()
        gone, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive
    assert len(gone) == 3


def test_a_pool_that_cannot_start_says_why_and_leaves_nothing() -> None:
    async def work() -> None:
        before = ours()
        frames = FramePool(FrameSettings(workers=2), extractor="tests.unit.gateway.frames.planted:no_such")
        with pytest.raises(RuntimeError, match="no_such"):
            await frames.start()
        assert not frames.ready
        assert ours() == before

    run(work)


def test_a_worker_knows_no_secret_of_the_gateways_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIWARDEN_KAFKA__PASSWORD", "hush")

    async def work() -> None:
        before = ours()
        async with pool(workers=1):
            processes = [psutil.Process(pid) for pid in ours() - before]
            assert len(processes) == 2
            environments = []
            for process in processes:
                with contextlib.suppress(psutil.AccessDenied):  # a worker's is root's alone to read
                    environments.append(process.environ())
            assert len(environments) == (2 if os.geteuid() == 0 else 1)
            assert not any("FEDIWARDEN_KAFKA__PASSWORD" in environment for environment in environments)

    run(work)


@pytest.mark.parametrize(("kind", "media_type"), [*pictures.KINDS, ("gif-10000", "image/gif")])
def test_every_kind_is_read_inside_the_closed_sandbox(kind: str, media_type: str, real: "Real") -> None:
    found = real.give(pictures.make(kind))
    assert found.media_type == media_type
    assert 1 <= len(found.frames) <= 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "JXL"])
def test_a_picture_that_needs_no_shrinking_is_read_inside_the_closed_sandbox(kind: str, real: "Real") -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (30, 120, 60)).save(buffer, kind)
    frames = real.give(buffer.getvalue()).frames
    assert [(frame.width, frame.height) for frame in frames] == [(300, 200)]


def test_a_video_too_large_to_decode_every_frame_is_read_inside_the_closed_sandbox(real: "Real") -> None:
    found = real.give(videos.too_large())
    assert (found.width, found.height, len(found.frames)) == (1280, 720, 8)


def test_a_heavy_video_is_read_within_its_limits(real: "Real") -> None:
    video = pictures.make("video-40mb")
    assert len(video) >= 40_000_000
    found = real.give(video)
    assert (found.width, found.height, len(found.frames)) == (1280, 720, 8)
    assert sum(len(frame.jpeg) for frame in found.frames) <= 900_000


@pytest.mark.parametrize("kind", pictures.BAD_KINDS)
def test_every_bad_kind_is_refused_and_no_worker_dies(kind: str, real: "Real") -> None:
    with pytest.raises(Unreadable) as raised:
        real.give(pictures.make(kind))
    assert raised.value.reason is not UnreadableReason.DECODER_DIED
    assert raised.value.detail
    assert real.workers() == real.first_workers


class Real:
    """One real pool for many tests, on a loop of its own."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._pool = FramePool(FrameSettings(workers=2, wall_s=60.0))  # other tests run beside
        self._runner.run(self._pool.start())
        self.first_workers = self.workers()

    def give(self, data: bytes) -> FrameSet:
        return self._runner.run(give(self._pool, data))

    def workers(self) -> set[int]:
        return {worker.pid for worker in self._pool._workers}

    def close(self) -> None:
        self._runner.run(self._pool.stop())
        self._runner.close()


@pytest.fixture(scope="module")
def real() -> "AsyncIterator[Real]":  # type: ignore[misc]
    frames = Real()
    yield frames
    frames.close()
