import errno
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from gateway.spool import segments
from gateway.spool.errors import EntryDamaged, SpoolFailed, SpoolFull, SpoolUnusable
from gateway.spool.segments import SegmentLog

HEAD_BYTES = 32


def opened(folder: Path, *, max_bytes: int = 1 << 20, segment_bytes: int = 1 << 20, sync: bool = True) -> SegmentLog:
    spool = SegmentLog(folder, max_bytes=max_bytes, segment_bytes=segment_bytes, sync=sync)
    spool.open()
    return spool


def contents(spool: SegmentLog) -> list[bytes]:
    return [entry.payload for entry in spool.pending()]


def test_entries_come_back_in_order_after_a_restart(tmp_path):
    spool = opened(tmp_path, max_bytes=4000, segment_bytes=100)
    numbers = [spool.append(b"%d" % i * 20) for i in range(20)]
    spool.release(numbers[3])
    spool.close()
    again = opened(tmp_path, max_bytes=4000, segment_bytes=100)
    assert contents(again) == [b"%d" % i * 20 for i in range(20) if i != 3]
    assert again.append(b"next") > numbers[-1]


def test_an_entry_carries_the_time_it_was_written(tmp_path, monkeypatch):
    spool = opened(tmp_path)
    for at_ms in (1_000, 2_000):
        monkeypatch.setattr(segments, "now_ms", lambda at_ms=at_ms: at_ms)
        spool.append(b"x")
    assert spool.oldest_at_ms == 1_000
    spool.release(0)
    assert spool.oldest_at_ms == 2_000
    spool.close()
    again = opened(tmp_path)
    assert again.oldest_at_ms == 2_000
    assert [entry.at_ms for entry in again.pending()] == [2_000]


def test_a_group_is_synced_once(tmp_path, monkeypatch):
    spool = opened(tmp_path)
    spool.append(b"the segment is there")
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    assert spool.append_many([b"a", b"b", b"c"]) == [1, 2, 3]
    assert len(synced) == 1
    assert spool.append_many([]) == []
    assert len(synced) == 1


def test_a_log_that_need_not_survive_a_power_failure_is_never_synced(tmp_path, monkeypatch):
    def refuse(fd):
        raise AssertionError("synced")

    monkeypatch.setattr(os, "fdatasync", refuse)
    monkeypatch.setattr(os, "fsync", refuse)
    spool = opened(tmp_path, max_bytes=4000, segment_bytes=100, sync=False)
    for _ in range(10):
        spool.append(b"x" * 50)
    assert spool.count == 10


def test_a_segment_is_deleted_when_its_last_entry_is_released(tmp_path):
    spool = opened(tmp_path, max_bytes=10_000, segment_bytes=200)
    numbers = [spool.append(b"x" * 68) for _ in range(6)]
    assert len(list(tmp_path.glob("*.log"))) == 3
    spool.release(numbers[2])
    assert spool.size == 600
    spool.release(numbers[3])
    assert spool.size == 400
    assert len(list(tmp_path.glob("*.log"))) == 2


def test_nothing_of_a_released_entry_stays_on_disk_when_the_log_is_empty_and_numbers_still_rise(tmp_path):
    spool = opened(tmp_path)
    numbers = [spool.append(b"secret") for _ in range(3)]
    for number in numbers:
        spool.release(number)
    assert spool.size == 0
    assert b"".join(path.read_bytes() for path in tmp_path.iterdir()) == b""
    spool.close()
    again = opened(tmp_path)
    assert again.append(b"x") > numbers[-1]


def test_releasing_twice_or_what_never_was_changes_nothing(tmp_path):
    spool = opened(tmp_path)
    first, second = spool.append_many([b"a", b"b"])
    spool.release(first)
    spool.release(first)
    spool.release(99)
    assert contents(spool) == [b"b"]
    assert spool.count == 1
    assert spool.read(second).payload == b"b"
    with pytest.raises(KeyError):
        spool.read(first)


def test_beyond_the_bound_it_is_full_and_takes_more_once_something_is_released(tmp_path):
    spool = opened(tmp_path, max_bytes=800)
    numbers = []
    with pytest.raises(SpoolFull, match="holds 800 of 800 bytes"):
        while True:
            numbers.append(spool.append(b"x" * 68))
    assert len(numbers) == 8
    assert spool.size == 800
    spool.release(numbers[0])
    assert spool.append(b"x" * 68) > numbers[-1]


def test_entries_may_be_appended_and_released_while_the_pending_are_read(tmp_path):
    spool = opened(tmp_path)
    spool.append_many([b"0", b"1", b"2"])
    seen = []
    for entry in spool.pending():
        seen.append(entry.payload)
        spool.release(entry.sequence)
        if entry.payload == b"0":
            spool.release(1)
            spool.append(b"3")
    assert seen == [b"0", b"2", b"3"]
    assert spool.count == 0


def test_files_and_folder_are_for_their_owner_alone(tmp_path):
    spool = opened(tmp_path / "new")
    spool.append(b"x")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}


@pytest.mark.parametrize("at", [0, 2, 5, 9, 17, 25, 29, HEAD_BYTES, HEAD_BYTES + 40])
def test_one_flipped_bit_loses_one_entry(tmp_path, at):
    spool = opened(tmp_path)
    for i in range(5):
        spool.append(b"%d" % i * 50)
    spool.close()
    (file,) = tmp_path.glob("*.log")
    data = bytearray(file.read_bytes())
    data[2 * (HEAD_BYTES + 50) + at] ^= 0x10
    file.write_bytes(data)
    again = opened(tmp_path)
    assert contents(again) == [b"%d" % i * 50 for i in (0, 1, 3, 4)]
    assert again.damaged == 1
    assert again.count == 4


def test_a_flipped_bit_of_the_state_releases_nothing(tmp_path):
    spool = opened(tmp_path)
    spool.append(b"x")
    spool.close()
    (file,) = tmp_path.glob("*.log")
    data = bytearray(file.read_bytes())
    for bit in range(8):
        data[3] = 1 << bit
        file.write_bytes(data)
        again = opened(tmp_path)
        assert contents(again) == [b"x"]
        again.close()


def test_a_payload_that_a_power_failure_left_unwritten_is_cut_off_and_no_damage(tmp_path):
    spool = opened(tmp_path)
    spool.append(b"a" * 50)
    spool.append(b"b" * 50)
    spool.close()
    (file,) = tmp_path.glob("*.log")
    file.write_bytes(file.read_bytes()[:-50] + bytes(50))
    again = opened(tmp_path)
    assert (again.count, again.damaged, again.size) == (1, 0, HEAD_BYTES + 50)
    assert contents(again) == [b"a" * 50]


def test_an_entry_damaged_after_the_start_is_given_up_and_its_segment_is_still_deleted(tmp_path):
    spool = opened(tmp_path)
    first, second = spool.append_many([b"a" * 50, b"b" * 50])
    (file,) = tmp_path.glob("*.log")
    data = bytearray(file.read_bytes())
    data[HEAD_BYTES + 10] ^= 1
    file.write_bytes(data)
    with pytest.raises(EntryDamaged, match=f"{file}: the entry at 0"):
        spool.read(first)
    assert (spool.damaged, spool.count) == (1, 1)
    spool.release(second)
    assert spool.size == 0


def test_a_damaged_older_segment_loses_what_is_damaged_alone(tmp_path):
    spool = opened(tmp_path, max_bytes=8000, segment_bytes=200)
    for i in range(6):
        spool.append(b"%d" % i * 68)
    spool.close()
    oldest = min(tmp_path.glob("*.log"))
    os.truncate(oldest, 150)
    again = opened(tmp_path, max_bytes=8000, segment_bytes=200)
    assert contents(again) == [b"%d" % i * 68 for i in (0, 2, 3, 4, 5)]
    assert again.damaged == 1


def test_a_sector_that_cannot_be_read_loses_what_lies_in_it(tmp_path, monkeypatch):
    spool = opened(tmp_path)
    for i in range(30):
        spool.append(b"%02d" % i * 500)
    spool.close()
    pread = os.pread

    def fail_in_the_third_block(fd, length, at):
        if 8192 <= at < 12288:
            raise OSError(errno.EIO, "Input/output error")
        return pread(fd, min(length, 8192 - at) if at < 8192 else length, at)

    monkeypatch.setattr(os, "pread", fail_in_the_third_block)
    again = opened(tmp_path)
    found = contents(again)
    whole = [b"%02d" % i * 500 for i in range(30) if (i + 1) * 1032 <= 8192 or i * 1032 >= 12288]
    assert found == whole
    assert again.damaged


def test_a_disk_that_fails_to_read_for_a_while_costs_nothing(tmp_path, monkeypatch):
    spool = opened(tmp_path, max_bytes=8000, segment_bytes=200)
    numbers = [spool.append(b"%d" % i * 68) for i in range(6)]
    spool.close()

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", fail)
        again = opened(tmp_path, max_bytes=8000, segment_bytes=200)
        assert (again.count, again.damaged) == (0, 3)
        new = again.append(b"meanwhile")
        assert new > numbers[-1]
        assert contents(again) == []
        again.close()
    later = opened(tmp_path, max_bytes=8000, segment_bytes=200)
    assert contents(later) == [b"%d" % i * 68 for i in range(6)] + [b"meanwhile"]


def test_a_removed_file_is_a_damaged_entry_and_an_exhausted_process_is_not(tmp_path, monkeypatch):
    spool = opened(tmp_path)
    first = spool.append(b"x")

    def exhausted(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", exhausted)
        with pytest.raises(SpoolFailed, match="Too many open files"):
            spool.read(first)
    assert spool.read(first).payload == b"x"
    next(tmp_path.glob("*.log")).unlink()
    with pytest.raises(EntryDamaged):
        spool.read(first)


def test_a_disk_that_fills_up_in_the_middle_of_a_group_takes_nothing_of_it_and_more_later(tmp_path, monkeypatch):
    spool = opened(tmp_path)
    spool.append(b"before")
    size = spool.size
    pwrite, room = os.pwrite, [150]

    def fill_up(fd, data, at):
        written = min(len(data), room[0])
        if not written:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= written
        return pwrite(fd, data[:written], at)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fill_up)
        with pytest.raises(SpoolFull, match="No space left on device"):
            spool.append_many([b"x" * 50] * 3)
    assert contents(spool) == [b"before"]
    assert spool.size == size == sum(path.stat().st_size for path in tmp_path.iterdir())
    spool.append(b"after")
    spool.close()
    again = opened(tmp_path)
    assert contents(again) == [b"before", b"after"]
    assert again.damaged == 0


def test_after_a_failed_sync_the_file_is_not_trusted_with_more(tmp_path, monkeypatch):
    spool = opened(tmp_path)
    spool.append(b"before")
    (old,) = tmp_path.glob("*.log")
    held = old.read_bytes()

    def fail(fd):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(SpoolFailed, match="Input/output error"):
            spool.append(b"lost")
    spool.append(b"after")
    assert old.read_bytes() == held
    assert contents(spool) == [b"before", b"after"]


def test_a_mark_that_cannot_be_written_does_not_stop_a_release(tmp_path, monkeypatch):
    spool = opened(tmp_path)
    first, _ = spool.append_many([b"a", b"b"])

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fail)
        spool.release(first)
    assert contents(spool) == [b"b"]


LIMITED = """
import resource, sys
from pathlib import Path
from gateway.spool.errors import SpoolFull
from gateway.spool.segments import SegmentLog
spool = SegmentLog(Path(sys.argv[1]), max_bytes=1 << 20, sync=True)
spool.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
taken = 0
try:
    while True:
        spool.append(bytes(1000))
        taken += 1
except SpoolFull:
    pass
spool.append(bytes(10))
print(taken, spool.count)
"""


def test_the_kernels_own_refusal_to_write_more_leaves_the_log_usable(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "5"]
    again = opened(tmp_path)
    assert contents(again) == [bytes(1000)] * 4 + [bytes(10)]


WRITER = """
import sys
from pathlib import Path
from gateway.spool.segments import SegmentLog
spool = SegmentLog(Path(sys.argv[1]), max_bytes=1 << 24, segment_bytes=20_000, sync=True)
spool.open()
out = open(1, "w", buffering=1)
size = 0
while True:
    size = (size * 7 + 1013) % 5000
    numbers = spool.append_many([b"%d " % size + bytes(size)] * 3)
    print("+", *numbers, file=out)
    print("~", numbers[1], file=out)
    spool.release(numbers[1])
    print("-", numbers[1], file=out)
"""


def test_a_process_killed_while_it_writes_loses_nothing_it_was_told_is_kept(tmp_path):
    chance = random.Random(4)
    kept: set[int] = set()
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(chance.randrange(1, 200))]
        child.kill()
        lines += child.stdout.readlines()  # what it had said before it died
        child.wait()
        child.stdout.close()
        told: dict[str, set[int]] = {"+": kept, "~": set(), "-": set()}  # kept, about to be released, released
        for line in lines:
            if line.endswith("\n"):
                sign, *numbers = line.split()
                told[sign].update(map(int, numbers))
        kept -= told["~"]  # killed between the release and the word of it, either is right
        spool = opened(tmp_path, max_bytes=1 << 24, segment_bytes=20_000)
        found = list(spool.pending())
        spool.close()
        assert spool.damaged == 0
        numbers = [entry.sequence for entry in found]
        assert numbers == sorted(set(numbers))
        assert kept <= set(numbers)
        assert not told["-"] & set(numbers)
        for entry in found:
            size, _, rest = entry.payload.partition(b" ")
            assert rest == bytes(int(size))
        kept = set(numbers)


def test_memory_does_not_hold_what_is_on_disk(tmp_path):
    spool = opened(tmp_path, max_bytes=1 << 27, segment_bytes=8 << 20, sync=False)
    for _ in range(64):
        spool.append_many([bytes(50_000)] * 16)
    spool.close()
    assert spool.size > 50_000_000
    tracemalloc.start()
    again = opened(tmp_path, max_bytes=1 << 27, segment_bytes=8 << 20, sync=False)
    total = sum(len(entry.payload) for entry in again.pending())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 64 * 16 * 50_000
    assert peak < 2_000_000


def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnusable, match=r"file/spool cannot be used \(Not a directory\); set gateway.spool_dir"):
        opened(tmp_path / "file" / "spool")
