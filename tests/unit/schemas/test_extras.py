"""How an extra is installed where it is missing."""

import shlex
import subprocess
import sys

from schemas.extras import install_command


def test_an_extra_is_installed_beside_the_fediwarden_that_runs() -> None:
    python, *arguments = shlex.split(install_command("parquet"))
    assert python == sys.executable
    assert arguments == ["-m", "pip", "install", "fediwarden[parquet]"]
    # As that Python sees it, our distribution is there already: no index is asked for one of this name.
    asked = [python, *arguments[:3], "--dry-run", "--no-deps", "--no-index", arguments[3]]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert "Requirement already satisfied: fediwarden[parquet]" in said
