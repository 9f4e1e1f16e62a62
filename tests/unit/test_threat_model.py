"""docs/security.md says of every stop which test proves it: each of them is there, and each stop has one."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
ADVERSARIES = (
    "hostile uploader",
    "hostile neighbour",
    "hostile instance",
    "thief of Kafka's disk",
    "curious reviewer",
    "compromised scanner",
    "malicious model file",
)


def test_every_test_that_it_names_is_there() -> None:
    assert len(NAMED) >= 60
    missing = [
        f"{file}::{name}"
        for file, name in NAMED
        if not (ROOT / file).is_file()
        or re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE) is None
    ]
    assert missing == []


def test_every_stop_names_a_test() -> None:
    tables = PAGE.split("| what stops it | proven by |\n|---|---|\n")[1:]
    assert len(tables) == len(ADVERSARIES)
    for table in tables:
        rows = [line for line in table.partition("\n\n")[0].splitlines() if line.startswith("|")]
        assert len(rows) >= 4
        assert [row for row in rows if "::test_" not in row] == []


def test_every_adversary_has_a_chapter_that_says_what_does_not_stop_it() -> None:
    chapters = PAGE.split("\n### ")[1:]
    for adversary in ADVERSARIES:
        (chapter,) = [each for each in chapters if adversary in each.partition("\n")[0]]
        assert "**What does not stop it.**" in chapter


def test_a_reporter_is_told_never_to_send_illegal_material() -> None:
    policy = (ROOT / "SECURITY.md").read_text()
    assert "Never send us illegal material" in policy
    assert "docs/security.md" in policy
