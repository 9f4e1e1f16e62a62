"""The fuzzer for a fixed number of runs, and every committed input once, also where there is no fuzzer."""

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import CORPUS, RUNS, TARGETS

ROOT = Path(__file__).parents[2]
HAS_FUZZER = importlib.util.find_spec("atheris") is not None


@pytest.mark.parametrize(
    ("target", "file"), [(target, file) for target in TARGETS for file in sorted((CORPUS / target).iterdir())]
)
def test_every_committed_input_holds(target: str, file: Path) -> None:
    TARGETS[target](file.read_bytes())


def test_the_fuzzer_is_there_where_it_can_be() -> None:
    expected = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 14)
    assert HAS_FUZZER or not expected


def test_the_fuzzer_finds_a_planted_fault(tmp_path: Path) -> None:
    """Or it would find none of ours either."""
    if not HAS_FUZZER:
        pytest.skip("there is no atheris for this platform")
    planted = tmp_path / "planted.py"
    planted.write_text(
        "import sys, atheris\n"
        "@atheris.instrument_func\n"
        "def broken(data):\n"
        "    if data[:1] == b'F' and data[1:2] == b'U':\n"
        "        raise IndexError('planted')\n"
        f"atheris.Setup([sys.argv[0], '-runs=200000', '-seed=1', '-artifact_prefix={tmp_path}/'], broken)\n"
        "atheris.Fuzz()\n"
    )
    ended = subprocess.run([sys.executable, str(planted)], capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    assert "planted" in ended.stdout + ended.stderr


def test_a_fixed_number_of_runs_finds_nothing(tmp_path: Path) -> None:
    if not HAS_FUZZER:
        pytest.skip("there is no atheris for this platform")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", str(tmp_path), "-seed=8"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=170,
    )
    said = ended.stdout + ended.stderr
    broken = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert ended.returncode == 0, f"{said[-4000:]}\ninputs: {broken}"
    assert "fuzzed 7 targets; broken: none" in said
    for target, runs in RUNS.items():
        assert f"Done {runs} runs" in said, f"{target}: {said[-2000:]}"
