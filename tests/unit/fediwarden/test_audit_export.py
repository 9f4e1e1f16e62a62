"""``audit export`` and ``audit report`` over the invented fediverse."""

import csv
import io
import json
import re
import stat
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from federation_audit.accounts.actions import Actor
from federation_audit.cases import Action, Level
from federation_audit.deciding.decisions import decide
from federation_audit.store.engine import Store
from fediwarden.cli import app
from schemas.clock import now_ms
from tests.fediverse import SECOND, copy_filled

runner = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory in which somebody has decided."""
    folder = tmp_path_factory.mktemp("data")
    url, _ = copy_filled(folder)
    with Store(url) as store, store.writing() as connection:
        for domain, action in (
            ("bad.example", Action.DEFEDERATE),
            ("raid.example", Action.RESTRICT_MEDIA),
            ("small.example", Action.CONTACT),
            ("[::1]", Action.DEFEDERATE),
        ):
            decide(connection, Actor("ada"), domain, action, "=1+1", level=Level.RESTRICT, days=9, at=now_ms())
    return folder


def run(folder: Path, *arguments: str) -> Result:
    return runner.invoke(app, ["audit", *arguments, "--data-dir", str(folder)])


def test_what_was_decided_is_exported_and_what_is_left_out_is_said(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "blocks.csv"
    done = run(folder, "export", "mastodon", "--output", str(output))
    assert done.exit_code == 0 and "left out: [::1]" in done.stderr
    rows = {row["#domain"]: row["#severity"] for row in csv.DictReader(io.StringIO(output.read_text()))}
    assert rows == {"bad.example": "suspend", "raid.example": "noop"}
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert run(folder, "export", "lemmy-0.19").stdout == "bad.example\n"


@pytest.mark.parametrize("form", ["fediblockhole", "lemmy-1.0", "fediseer", "evidence", "coop"])
def test_every_format_can_be_had(folder: Path, form: str) -> None:
    done = run(folder, "export", form)
    assert done.exit_code == 0
    assert "bad.example" in (done.stderr if form == "coop" else done.stdout)


def test_flags_are_raised_in_somebodys_name(folder: Path) -> None:
    done = run(folder, "export", "flag", "--actor", "https://my.example/")
    flags = [json.loads(line) for line in done.stdout.splitlines()]
    assert flags and {each["actor"] for each in flags} == {"https://my.example/"}
    assert "say in whose name" in run(folder, "export", "flag").stderr


def test_a_report_is_written_and_names_no_image(folder: Path) -> None:
    done = run(folder, "report", "BAD.example")
    assert done.exit_code == 0 and done.stdout.startswith("Hello admins of bad.example")
    assert "pixhost.example/" not in done.stdout and "--tenant" in done.stderr
    document = json.loads(run(folder, "report", "bad.example", "--format", "json", "--tenant", SECOND).stdout)
    assert document["reported_by"] == SECOND and len(document["incidents"]) == 1
    assert run(folder, "report", "bad.example", "--format", "markdown").stdout.count("### ") >= 6


def test_what_cannot_be_reported_is_said(folder: Path) -> None:
    done = run(folder, "report", "oak.example")
    assert done.exit_code == 1 and "no incident of oak.example is confirmed" in done.stderr
    done = run(folder, "report", "BÜCHER.example:8443")
    assert done.exit_code == 1 and "no incident of xn--bcher-kva.example is confirmed" in done.stderr
    assert run(folder, "report", "<script>").exit_code == 2
    done = run(folder, "report", "bad.example", "--tenant", "nobody")
    assert done.exit_code == 2 and "default" in done.stderr
    assert run(folder, "export", "excel").exit_code == 2


def test_evidence_leads_to_our_pages_where_they_have_an_address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def links() -> set[str]:
        lines = run(folder, "export", "evidence").stdout.splitlines()
        return {json.loads(line)["case_link"] for line in lines}

    assert links() == {""}
    monkeypatch.setenv("FEDIWARDEN_AUDIT__PAGES__PUBLIC_URL", "https://audit.example")
    assert all(re.fullmatch(r"https://audit\.example/review/default/[0-9a-f]{64}", link) for link in links())
