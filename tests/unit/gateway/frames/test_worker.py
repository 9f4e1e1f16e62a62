"""What passes between gateway and worker, and how the sandbox copes with what a machine lacks."""

import json
import subprocess
import sys

import msgpack
import pytest

from gateway.frames.frame import Frame, FrameSet
from gateway.frames.settings import FrameSettings
from gateway.frames.worker import pack, unpack
from schemas.topics import FRAMES_MAX_BYTES

FOUND = FrameSet("image/gif", 640, 480, 900, (Frame(b"\xff\xd8\xff\xd9", 512, 384, 0, bytes(32), 100, bytes(224)),) * 2)


def test_a_frame_set_comes_back_as_it_went() -> None:
    assert unpack(msgpack.unpackb(msgpack.packb(pack(FOUND)))) == FOUND


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        [],
        "frames",
        ["image/gif", 640, 480, 900, []],
        ["image/gif", 640, 480, 900, [[b"", 1, 1, 0, bytes(32), 0]] * 9],
        ["image/gif", -1, 480, 900, [[b"", 1, 1, 0, bytes(32), 0]]],
        ["image/gif", 640, 480, True, [[b"", 1, 1, 0, bytes(32), 0]]],
        ["image/gif", 640, 480, 900, [["text", 1, 1, 0, bytes(32), 0]]],
        ["image/gif", 640, 480, 900, [[b"", 1, 1, 0, bytes(31), 0]]],
        ["image/gif", 640, 480, 900, [[b"", 1, 1]]],
        [b"image/gif", 640, 480, 900, [[b"", 1, 1, 0, bytes(32), 0]]],
    ],
)
def test_an_answer_that_is_no_frame_set_is_refused(nonsense: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        unpack(nonsense)


def test_the_sandbox_needs_no_other_program_once_it_is_loaded() -> None:
    script = """
import json, subprocess
from gateway.frames import sandbox
sandbox.preload()
subprocess.Popen = None  # nobody but root may start one below the limit of processes
print(json.dumps(sandbox.close_in(1536, 16).missing))
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(shown) == []


@pytest.mark.parametrize(("package", "part"), [("pyseccomp", "seccomp"), ("landlockpy", "landlock")])
def test_a_missing_package_takes_only_its_own_part_of_the_sandbox_away(package: str, part: str) -> None:
    script = f"""
import json, sys
sys.modules[{package!r}] = None
from gateway.frames import sandbox
sandbox.preload()
held = sandbox.close_in(1536, 16)
print(json.dumps([held.as_dict(), held.missing, held.complete]))
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    parts, missing, complete = json.loads(shown)
    assert [name for name, on in parts.items() if not on] == [part]
    assert len(missing) == 1
    assert missing[0].startswith(f"{part}: ")
    assert not complete


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in FrameSettings.model_fields.values())
    assert FrameSettings().workers >= 2


def test_a_frame_set_is_never_allowed_to_outgrow_its_record() -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        FrameSettings(max_bytes=FRAMES_MAX_BYTES + 1)
