"""The alert rules and Prometheus' configuration, by promtool itself. `make test-rules` fetches it and runs this."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROMETHEUS = Path(__file__).parents[4] / "compose" / "prometheus"
PROMTOOL = shutil.which("promtool")
REQUIRED = "FEDIWARDEN_REQUIRE_PROMTOOL"
"""Set where promtool was fetched for the tests (CI, `make test-rules`): then its absence is a failure."""

pytestmark = pytest.mark.skipif(
    PROMTOOL is None and not os.environ.get(REQUIRED), reason="promtool is not installed: make test-rules fetches it"
)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "rules.yaml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("test", "rules", "tests/rules_test.yaml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_no_fault(arguments: tuple[str, ...]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
