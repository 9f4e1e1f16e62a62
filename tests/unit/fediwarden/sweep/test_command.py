"""What `fediwarden sweep` refuses before it reads anything, and what its exit code says."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fediwarden import cli
from fediwarden.cli.sweep import exit_code_of, summary
from fediwarden.exits import exit_code
from fediwarden.sweep.checkpoints import Checkpoints
from fediwarden.sweep.errors import SourceUnknown, WouldBeRemoved
from schemas.messages import SweepCheckpoint, SweepFinding, SweepFound, SweepMode, SweepOutcome

PICT_RS = {
    "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS": "http://127.0.0.1:9",
    "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS_API_KEY": "a-key",
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDIWARDEN_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "files").mkdir()


@pytest.mark.parametrize(
    ("arguments", "environment", "error", "says"),
    [
        (["none"], {}, SourceUnknown, "there is no folder"),
        (["files", "--tenant", "other"], {}, SourceUnknown, "--tenant: there is no tenant other"),
        (["files", "--as", "other"], {}, SourceUnknown, "--as: there is no tenant other"),
        (["files"], PICT_RS, WouldBeRemoved, "would remove files without --apply"),
        (["files", "--quarantine", "away"], PICT_RS, WouldBeRemoved, "--as NAME"),
    ],
)
def test_what_stands_in_the_way_is_one_sentence_and_an_exit_code(
    arguments: list[str], environment: dict[str, str], error: type[Exception], says: str
) -> None:
    if "files" in arguments or "none" in arguments:
        pytest.importorskip("fsspec")
    ended = CliRunner().invoke(cli.app, ["sweep", *arguments], env=environment)
    assert isinstance(ended.exception, error) and says in str(ended.exception)
    assert exit_code(ended.exception) == 2


def test_what_is_rejected_is_either_removed_or_moved() -> None:
    ended = CliRunner().invoke(cli.app, ["sweep", "files", "--apply", "--quarantine", "away"])
    assert ended.exit_code == 2 and "one of them" in ended.output


def _found(finding: SweepFinding, outcome: SweepOutcome = SweepOutcome.LEFT, **more: Any) -> SweepFound:
    return SweepFound(
        sweep="s", object_id=f"{finding}-{outcome}", path="a.jpg", finding=finding, outcome=outcome, found_at=1, **more
    )


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([], 0),
        ([_found(SweepFinding.REVIEW), _found(SweepFinding.DAMAGED)], 0),
        ([_found(SweepFinding.REJECTED, SweepOutcome.REMOVED)], 0),
        ([_found(SweepFinding.REJECTED)], 1),
        ([_found(SweepFinding.REJECTED, SweepOutcome.KEPT)], 2),
        ([_found(SweepFinding.REJECTED), _found(SweepFinding.UNREADABLE)], 2),
        ([_found(SweepFinding.UNJUDGED)], 2),
        ([_found(SweepFinding.TOO_LARGE)], 2),
    ],
)
def test_the_exit_code_says_whether_something_bad_or_unknown_is_left(found: list[SweepFound], code: int) -> None:
    checkpoints = Checkpoints("s")
    checkpoints.found = {each.object_id: each for each in found}
    assert exit_code_of(checkpoints) == code


def test_a_summary_says_how_far_it_is_and_what_was_found_the_gravest_first() -> None:
    checkpoints = Checkpoints("s")
    assert (summary(checkpoints)["source"], summary(checkpoints)["found"]) == (None, [])
    checkpoints.standing = SweepCheckpoint(
        sweep="s",
        source="s3://media",
        mode=SweepMode.REPORT,
        position=("a",),
        counts={"listed": 3},
        begun_at=1,
        changed_at=2,
    )
    review = _found(SweepFinding.REVIEW)
    rejected = _found(SweepFinding.REJECTED, sha256=b"\1" * 32, rules=("explicit",))
    checkpoints.found = {each.object_id: each for each in (review, rejected)}
    said = summary(checkpoints)
    assert (said["under_way"], said["counts"], said["mode"]) == (True, {"listed": 3}, "report")
    assert [each["finding"] for each in said["found"]] == ["rejected", "review"]
    assert (said["found"][0]["sha256"], said["found"][0]["rules"]) == ("01" * 32, ["explicit"])
