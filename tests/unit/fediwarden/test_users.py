import json
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select
from typer.testing import CliRunner

from federation_audit.accounts import passwords
from federation_audit.accounts.tables import ACTIONS, USERS
from fediwarden.cli import app
from fediwarden.exits import is_ours
from tests.pages import WORDS, cheap_passwords

runner = CliRunner()


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "Passwords", cheap_passwords)


def users(folder: Path, *arguments: str, typed: str = "") -> str:
    done = runner.invoke(app, ["users", *arguments, "--data-dir", str(folder)], input=typed)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        assert is_ours(done.exception)
        return str(done.exception)
    return done.output


def test_users_are_added_listed_changed_and_removed(tmp_path: Path) -> None:
    assert "no users" in users(tmp_path, "list")
    assert "added as admin" in users(tmp_path, "add", "ada", "--role", "admin", "--password-stdin", typed=WORDS + "\n")
    made = users(tmp_path, "add", "bob", "--make").splitlines()[-1]
    assert len(made) == 24
    listed = json.loads(users(tmp_path, "list", "--json"))
    assert [(each["name"], each["role"], each["must_change"]) for each in listed] == [
        ("ada", "admin", False),
        ("bob", "viewer", True),
    ]
    assert "ada" in users(tmp_path, "list") and "to be changed" in users(tmp_path, "list")
    assert "logged out" in users(tmp_path, "password", "bob", "--password-stdin", typed=WORDS + "\n")
    assert "removed" in users(tmp_path, "remove", "bob")
    assert "only admin" in users(tmp_path, "remove", "ada")
    assert (tmp_path / "audit.sqlite").stat().st_mode & 0o077 == 0
    engine = create_engine(f"sqlite:///{tmp_path / 'audit.sqlite'}")
    with engine.connect() as connection:
        log = [(row.what, row.about) for row in connection.execute(select(ACTIONS).order_by(ACTIONS.c.id))]
        kept = str(connection.execute(select(USERS)).all()) + str(connection.execute(select(ACTIONS)).all())
    engine.dispose()
    assert log == [("user added", "ada"), ("user added", "bob"), ("password set", "bob"), ("user removed", "bob")]
    assert WORDS not in kept and made not in kept


def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path: Path) -> None:
    assert "at least 12" in users(tmp_path, "add", "ada", "--password-stdin", typed="short\n")
    assert "is no role" in users(tmp_path, "add", "ada", "--role", "god", "--make")
    assert "a-z" in users(tmp_path, "add", "Ada Lovelace", "--make")
    assert "There is no user" in users(tmp_path, "password", "nobody", "--make")
    assert "no terminal" in users(tmp_path, "add", "ada", typed=WORDS)
    assert "exclude" in users(tmp_path, "add", "ada", "--make", "--password-stdin")


def test_no_password_is_taken_as_an_argument() -> None:
    helped = runner.invoke(app, ["users", "add", "--help"]).output
    assert "--password-stdin" in helped and "--password " not in helped
