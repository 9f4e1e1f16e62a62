import asyncio
import functools
import os
import threading
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.spool import spool as spool_module
from gateway.spool.errors import SpoolFailed, SpoolFull, SpoolUnusable
from gateway.spool.parcels import Parcel
from gateway.spool.segments import SegmentLog
from gateway.spool.spool import Spool
from schemas.broker import BrokerUnavailable, PublishRefused
from schemas.topics import IMAGES_BACKLOG
from tests.unit.gateway.spool.messages import make_image

MIB = 1 << 20


def in_a_loop(test):
    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(test(*arguments, **named))

    return run


def make_spool(folder, **more):
    return Spool(folder, **{"max_bytes": 16 * MIB} | more)


def make_parcel(number, size=100):
    message = make_image(number, size)
    return Parcel(IMAGES_BACKLOG, message, message.sha256)


def number_of(parcel):
    return int(parcel.message.scan_id.removeprefix("scan-"))


@asynccontextmanager
async def draining(spool, publish, **more):
    task = asyncio.create_task(spool.drain(publish, **more))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(spool_module, "_RETRY_FIRST_S", 0.001)


@in_a_loop
async def test_what_one_gateway_kept_the_next_publishes_in_order(tmp_path):
    async with make_spool(tmp_path) as spool:
        for number in range(20):
            await spool.append(make_parcel(number))
    published = []

    async def publish(parcel):
        published.append(parcel)

    async with make_spool(tmp_path) as spool:
        assert spool.count == 20
        assert spool.oldest_at_ms is not None
        await spool.drain(publish, until_empty=True)
        assert (spool.count, spool.size, spool.oldest_at_ms) == (0, 0, None)
    assert published == [make_parcel(number) for number in range(20)]


@in_a_loop
async def test_a_parcel_is_released_when_its_publish_returned_and_not_before(tmp_path):
    started: list[int] = []
    acknowledged = {number: asyncio.Event() for number in range(10)}
    four_started = asyncio.Event()

    async def publish(parcel):
        number = number_of(parcel)
        started.append(number)
        if len(started) >= 4:
            four_started.set()
        await acknowledged[number].wait()

    async with make_spool(tmp_path) as spool:
        for number in range(10):
            await spool.append(make_parcel(number))
        async with draining(spool, publish, concurrency=4):
            await four_started.wait()
            four_started.clear()
            assert started == [0, 1, 2, 3]
            assert spool.count == 10
            acknowledged[2].set()
            await four_started.wait()
            assert started == [0, 1, 2, 3, 4]
            assert spool.count == 9
    published: list[int] = []

    async def note(parcel):
        published.append(number_of(parcel))

    async with make_spool(tmp_path) as spool:
        await spool.drain(note, until_empty=True)
    assert published == [0, 1, 3, 4, 5, 6, 7, 8, 9]


@in_a_loop
async def test_the_drain_waits_for_what_is_yet_to_come(tmp_path):
    published: asyncio.Queue[int] = asyncio.Queue()

    async def publish(parcel):
        await published.put(number_of(parcel))

    async with make_spool(tmp_path) as spool, draining(spool, publish):
        for number in range(5):
            await spool.append(make_parcel(number))
            assert await published.get() == number


@in_a_loop
async def test_a_drain_with_nothing_to_do_leaves_the_disk_alone(tmp_path, monkeypatch):
    looks = []
    next_after = SegmentLog.next_after

    def look(log, position):
        looks.append(position)
        return next_after(log, position)

    async def publish(parcel):
        published.set()

    published = asyncio.Event()
    async with make_spool(tmp_path) as spool:
        await spool.append(make_parcel(0))
        monkeypatch.setattr(SegmentLog, "next_after", look)
        async with draining(spool, publish):
            await published.wait()
            for _ in range(50):  # each takes its turn behind whatever else wants the disk
                await spool._run(lambda: None)
    assert len(looks) < 10


@in_a_loop
async def test_a_cancelled_drain_can_be_called_again(tmp_path):
    hanging, published = asyncio.Event(), []

    async def hang(parcel):
        hanging.set()
        await asyncio.Event().wait()

    async def publish(parcel):
        published.append(number_of(parcel))

    async with make_spool(tmp_path) as spool:
        for number in range(3):
            await spool.append(make_parcel(number))
        async with draining(spool, hang):
            await hanging.wait()
        await spool.drain(publish, until_empty=True)
    assert published == [0, 1, 2]


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), RuntimeError("a bug")])
@in_a_loop
async def test_a_publish_that_fails_for_a_while_is_tried_until_it_succeeds(tmp_path, error):
    tries: list[int] = []

    async def publish(parcel):
        tries.append(number_of(parcel))
        if tries.count(number_of(parcel)) < 3:
            raise error

    async with make_spool(tmp_path) as spool:
        for number in range(3):
            await spool.append(make_parcel(number))
        await spool.drain(publish, until_empty=True)
        assert (spool.count, spool.refused_count) == (0, 0)
    assert sorted(tries) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@in_a_loop
async def test_a_parcel_that_kafka_refuses_is_set_aside_and_holds_up_nobody(tmp_path):
    published = []

    async def publish(parcel):
        if number_of(parcel) == 0:
            raise PublishRefused("too large")
        published.append(number_of(parcel))

    async with make_spool(tmp_path) as spool:
        for number in range(3):
            await spool.append(make_parcel(number))
        await spool.drain(publish, concurrency=1, until_empty=True)
        assert (spool.count, spool.refused_count) == (0, 1)
    assert published == [1, 2]
    (file,) = (tmp_path / "refused").iterdir()
    assert file.name == f"{0:020d}.refused"
    assert file.stat().st_mode & 0o777 == 0o600
    assert Parcel.from_bytes(file.read_bytes()) == make_parcel(0)
    async with make_spool(tmp_path) as spool:
        assert (spool.count, spool.refused_count) == (0, 1)


@in_a_loop
async def test_what_is_no_parcel_is_set_aside(tmp_path):
    log = SegmentLog(tmp_path / "frames", max_bytes=MIB, sync=True)
    log.open()
    log.append(b"written by a later release")
    log.close()
    published = []

    async def publish(parcel):
        published.append(number_of(parcel))

    async with make_spool(tmp_path) as spool:
        await spool.append(make_parcel(7))
        await spool.drain(publish, until_empty=True)
    assert published == [7]
    assert (tmp_path / "refused" / f"{0:020d}.unreadable").read_bytes() == b"written by a later release"


@in_a_loop
async def test_what_cannot_be_set_aside_stays(tmp_path, monkeypatch):
    async def publish(parcel):
        raise PublishRefused("too large")

    async with make_spool(tmp_path) as spool:
        await spool.append(make_parcel(0))
        (tmp_path / "refused").rmdir()
        await spool.drain(publish, until_empty=True)
        assert (spool.count, spool.refused_count) == (1, 0)


@in_a_loop
async def test_beyond_the_bound_appends_are_refused_and_what_fits_is_taken(tmp_path):
    async with make_spool(tmp_path, max_bytes=2 * MIB) as spool:
        assert not spool.full
        outcomes = await asyncio.gather(
            *(spool.append(make_parcel(number, 300_000)) for number in range(10)), return_exceptions=True
        )
        taken = [outcome for outcome in outcomes if isinstance(outcome, int)]
        assert len(taken) == spool.count == 6
        assert all(isinstance(outcome, SpoolFull) for outcome in outcomes if not isinstance(outcome, int))
        assert spool.full


@in_a_loop
async def test_what_is_set_aside_counts_towards_the_bound(tmp_path):
    async def publish(parcel):
        raise PublishRefused("too large")

    for _ in range(2):
        async with make_spool(tmp_path, max_bytes=2 * MIB) as spool:
            await spool.append(make_parcel(0, 600_000))
            await spool.drain(publish, until_empty=True)
    async with make_spool(tmp_path, max_bytes=2 * MIB) as spool:
        assert spool.full
        with pytest.raises(SpoolFull):
            await spool.append(make_parcel(0, 900_000))


@in_a_loop
async def test_parcels_that_arrive_while_one_is_synced_share_the_next_sync_off_the_loop(tmp_path, monkeypatch):
    syncing, go_on = threading.Event(), threading.Event()
    threads = []
    fdatasync = os.fdatasync

    def slow_disk(fd):
        threads.append(threading.current_thread())
        syncing.set()
        go_on.wait()
        fdatasync(fd)

    async with make_spool(tmp_path) as spool:
        monkeypatch.setattr(os, "fdatasync", slow_disk)
        first = asyncio.create_task(spool.append(make_parcel(0)))
        await asyncio.to_thread(syncing.wait)
        others = [asyncio.create_task(spool.append(make_parcel(number))) for number in range(1, 11)]
        for _ in range(3):
            await asyncio.sleep(0)  # all of them have arrived; the loop turns while the disk is busy
        assert not first.done()
        go_on.set()
        assert await asyncio.gather(first, *others) == list(range(11))
    assert len(threads) == 2
    assert threading.main_thread() not in threads


@in_a_loop
async def test_a_cancelled_append_leaves_the_others_alone(tmp_path):
    async with make_spool(tmp_path) as spool:
        tasks = [asyncio.create_task(spool.append(make_parcel(number))) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(second, asyncio.CancelledError)
        assert isinstance(first, int)
        assert isinstance(third, int)
        assert spool.count in (2, 3)


@in_a_loop
async def test_what_was_being_written_is_there_after_a_stop(tmp_path):
    spool = make_spool(tmp_path)
    await spool.start()
    appending = asyncio.create_task(spool.append(make_parcel(0)))
    await asyncio.sleep(0)
    await spool.stop()
    await appending
    async with make_spool(tmp_path) as again:
        assert again.count == 1


@in_a_loop
async def test_a_spool_that_is_not_open_takes_nothing(tmp_path):
    spool = make_spool(tmp_path)
    with pytest.raises(SpoolFailed, match="not open"):
        await spool.append(make_parcel(0))
    await spool.start()
    await spool.stop()
    with pytest.raises(SpoolFailed, match="not open"):
        await spool.append(make_parcel(0))


@in_a_loop
async def test_an_unusable_folder_is_told_at_the_start(tmp_path):
    (tmp_path / "refused").touch()
    with pytest.raises(SpoolUnusable, match="refused cannot be used"):
        await make_spool(tmp_path).start()
