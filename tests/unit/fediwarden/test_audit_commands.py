"""``audit instances`` and ``audit instance`` over the invented fediverse."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fediwarden.cli import app
from tests.fediverse import LEVELS, LIST, a_day, copy_filled


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    copy_filled(tmp_path)
    monkeypatch.setattr("fediwarden.cli.audit_store.today_utc", a_day)
    monkeypatch.setenv("FEDIWARDEN_AUDIT__VERIFIED_LISTS", json.dumps([LIST.partition("@")[0]]))

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["audit", *arguments, "--data-dir", str(tmp_path)])

    return invoke


def test_instances_stand_by_level_and_then_by_name(run):
    table = run("instances")
    assert table.exit_code == 0, table.output
    names = [line.split()[0] for line in table.stdout.splitlines()[2:]]
    assert names == sorted(names, key=lambda name: (-LEVELS.get(name, 0), name))
    by_name = dict(zip(names, table.stdout.splitlines()[2:], strict=True))
    assert "3 recommend" in by_name["bad.example"]
    assert "confirmed incidents" in by_name["bad.example"]
    assert "2 restrict" in by_name["raid.example"]
    assert "flagged where" in by_name["drawings.example"]
    found = json.loads(run("instances", "--json").stdout)
    assert [each["domain"] for each in found] == names
    assert {
        each["domain"]: each["assessment"]["level"]["number"] for each in found if each["assessment"]["level"]["number"]
    } == LEVELS


def test_the_assessment_is_of_the_day_that_it_is(run, monkeypatch):
    before = a_day() - timedelta(days=1)
    monkeypatch.setattr("fediwarden.cli.audit_store.today_utc", lambda: before)
    assert f"As of {before}." in run("instances").stdout
    assert f"As of {before}." in run("instance", "bad.example").stdout


def test_an_instance_tells_its_level_reasons_weaknesses_and_incidents(run):
    shown = run("instance", "Flooded.example")
    assert shown.exit_code == 0, shown.output
    for words in ("level 0 insufficient", "why:", "what weakens it:", "All 8 by one account", "confirmed incident"):
        assert words in shown.stdout
    found = json.loads(run("instance", "flooded.example", "--json").stdout)
    assessment = found["assessment"]
    assert (len(assessment["incidents"]), sum(each["counts"] for each in assessment["incidents"])) == (8, 1)
    assert assessment["times_the_usual"]["low"] < assessment["times_the_usual"]["estimate"]
    assert found["author"]["images"] == assessment["images"] == 808
    listed = json.loads(run("instance", "listed.example", "--json").stdout)
    assert [each["confirmed_by"] for each in listed["assessment"]["incidents"]] == ["hash"]


def test_a_mere_host_is_not_assessed_and_somebody_unknown_is_exit_code_1(run):
    host = run("instance", "pixhost.example")
    assert host.exit_code == 0
    assert "level" not in host.stdout
    assert json.loads(run("instance", "pixhost.example", "--json").stdout)["assessment"] is None
    assert run("instance", "nobody.example").exit_code == 1
    assert run("instance", "not a domain").exit_code == 2
