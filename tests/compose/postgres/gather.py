"""Puts what the stand-in for postgres is built from into a folder: ``python -m tests.compose.postgres.gather DIR``."""

import shutil
import sys
from pathlib import Path

from tests.kafka import cache_dir
from tests.postgres import fetch_binaries

HERE = Path(__file__).parent


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(fetch_binaries(cache_dir()), folder / "postgres", symlinks=True)
    for name in ("Dockerfile", "run"):
        shutil.copy(HERE / name, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
