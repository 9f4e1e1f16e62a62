"""What can be said about the dependencies without asking anybody: locked, hashed, from a registry, licensed."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = [
    "requirements.lock",
    "requirements-gpu.lock",
    "requirements-sweep.lock",
    "requirements-exchanges.lock",
    "requirements-dev.lock",
    "tests/synapse/requirements.lock",
]

_REQUIREMENT = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)(\[[a-z0-9,-]+\])?==(?P<version>[^\s;]+)( ; (?P<marker>.+))?")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def read(lock: str) -> dict[tuple[str, str], list[str]]:
    """The hashes of each package and version; fails at a line that is anything else."""
    found: dict[tuple[str, str], list[str]] = {}
    text = re.sub(r"^ *#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in text.splitlines():
        requirement, *hashes = re.split(r"\s+(?=--hash)", line.strip())
        matched = _REQUIREMENT.fullmatch(requirement.strip())
        assert matched, f"{lock}: {line[:120]!r} is no pinned requirement (an address, a range, an index?)"
        found.setdefault((matched["name"], matched["version"]), []).extend(each.strip() for each in hashes)
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_dependency_is_pinned_and_has_its_hashes(lock: str) -> None:
    locked = read(lock)
    assert len(locked) > 30
    for (name, version), hashes in locked.items():
        assert hashes, f"{lock}: {name}=={version} has no hash"
        assert all(_HASH.fullmatch(each) for each in hashes), f"{lock}: {name}=={version}"


def test_what_developers_run_is_what_admins_install() -> None:
    runtime, dev = read("requirements.lock"), read("requirements-dev.lock")
    assert {each: sorted(hashes) for each, hashes in runtime.items()}.items() <= {
        each: sorted(hashes) for each, hashes in dev.items()
    }.items()


@pytest.mark.parametrize(
    ("said", "ended", "code", "reported"),
    [
        ("No known vulnerabilities found", 0, 0, "no known vulnerability"),
        ("Found 2 known vulnerabilities in 1 package\nname 1.0 CVE-1", 1, 1, "CVE-1"),
        ("requests.exceptions.ConnectionError: api.osv.dev", 1, 3, "NOT AUDITED"),
        ("ERROR: name: Dependency not found on PyPI and could not be audited", 1, 3, "NOT AUDITED"),
    ],
)
def test_the_audit_takes_silence_for_no_answer(said: str, ended: int, code: int, reported: str, tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\necho \"$@\" >{tmp_path}/asked\nexit {ended}\n")
    uv.chmod(0o755)
    audit = subprocess.run(
        ["sh", str(ROOT / ".ci" / "audit"), str(uv), "requirements.lock"], capture_output=True, text=True, timeout=60
    )
    assert audit.returncode == code
    assert reported in audit.stdout + audit.stderr
    assert "--strict" in (tmp_path / "asked").read_text()
