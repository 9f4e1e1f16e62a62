"""Puts what the stand-in for apache/kafka is built from into a folder: ``python -m tests.compose.kafka.gather DIR``."""

import os
import shutil
import sys
from pathlib import Path

from fediwarden.kafka.jars import prepare_jars
from fediwarden.kafka.java import find_java

HERE = Path(__file__).parent


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "jars").mkdir(parents=True)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fediwarden"
    for jar in prepare_jars(cache):
        shutil.copy(jar, folder / "jars")
    shutil.copytree(find_java().resolve().parents[1], folder / "java", symlinks=True)
    for name in ("Dockerfile", "run", "log4j2.yaml"):
        shutil.copy(HERE / name, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
