"""What judges people's uploads reports to nobody."""

import os
import subprocess
import sys
from pathlib import Path

from tests.models import models_dir

SCRIPT = """
import sys
from pathlib import Path
from scanner.models.loading import load_models
load_models(("safety-s", "open-nsfw"), Path(sys.argv[1]), device="cpu", threads=1)
"""


def test_loading_the_models_leaves_no_trace_of_telemetry(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(models_dir())],
        env=kept | {"HOME": str(tmp_path)},
        check=True,
        capture_output=True,
    )
    assert list(tmp_path.rglob("*")) == []
