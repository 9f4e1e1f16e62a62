import subprocess
import sys

import pytest

from gateway.spool.errors import SpoolUnusable
from gateway.spool.segments import SegmentLog
from gateway.spool.slots import adopt_orphans, claim_slot

HOLDER = """
import sys
from pathlib import Path
from gateway.spool.segments import SegmentLog
from gateway.spool.slots import claim_slot
sys.stdin.readline()
slot = claim_slot(Path(sys.argv[1]))
spool = SegmentLog(slot.path / "frames", max_bytes=1 << 20, sync=True)
spool.open()
spool.append(slot.path.name.encode())
print(slot.path.name, flush=True)
sys.stdin.readline()
"""


def start_holder(folder):
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def contents(slot):
    spool = SegmentLog(slot.path / "frames", max_bytes=1 << 20, sync=True)
    spool.open()
    found = [entry.payload for entry in spool.pending()]
    spool.close()
    return found


def test_processes_that_race_get_a_slot_each_and_what_the_killed_leave_is_adopted(tmp_path):
    folder = tmp_path / "spool"
    holders = [start_holder(folder) for _ in range(4)]
    for holder in holders:
        holder.stdin.write("go\n")
        holder.stdin.flush()
    by_slot = {holder.stdout.readline().strip(): holder for holder in holders}
    assert sorted(by_slot) == ["0", "1", "2", "3"]

    assert adopt_orphans(folder) == []
    for number in ("1", "2"):
        by_slot[number].kill()
        by_slot[number].wait()
    with claim_slot(folder) as mine:
        assert mine.path.name == "1"
        assert contents(mine) == [b"1"]
        (orphan,) = adopt_orphans(folder)
        assert orphan.path.name == "2"
        assert contents(orphan) == [b"2"]
        assert adopt_orphans(folder) == []
        orphan.release()
    for holder in holders:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()


def test_a_released_slot_is_free_again_and_an_empty_one_is_nobodys_orphan(tmp_path):
    first, second = claim_slot(tmp_path), claim_slot(tmp_path)
    assert (first.path.name, second.path.name) == ("0", "1")
    first.release()
    first.release()
    assert adopt_orphans(tmp_path) == []
    with claim_slot(tmp_path) as again:
        assert again.path.name == "0"


def test_what_else_lies_in_the_folder_is_left_alone(tmp_path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "7").mkdir()
    assert adopt_orphans(tmp_path) == []
    assert not (tmp_path / "7" / "lock").exists()


def test_slots_are_for_their_owner_alone(tmp_path):
    with claim_slot(tmp_path / "spool") as slot:
        assert slot.path.stat().st_mode & 0o777 == 0o700
        assert slot.path.parent.stat().st_mode & 0o777 == 0o700
        assert (slot.path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_used_names_itself_and_the_setting(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnusable, match=r"the spool in .*/file cannot be used \(.*\); set gateway.spool_dir"):
        claim_slot(tmp_path / "file")
    with pytest.raises(SpoolUnusable, match="absent cannot be used"):
        adopt_orphans(tmp_path / "absent")
