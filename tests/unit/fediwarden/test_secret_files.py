"""Secrets from files: what is read, what wins, what is refused, and that nothing shows them."""

import os
import traceback
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fediwarden.cli import app
from fediwarden.secret_files import SECRETS_VARIABLE
from fediwarden.settings import MASK, SettingsError, effective_settings, environment_of, load_settings

PASSWORD = "correct horse battery staple"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of secrets, which the environment names; nothing else is set."""
    for name in list(os.environ):
        if name.upper().startswith("FEDIWARDEN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv(SECRETS_VARIABLE, str(folder))
    return folder


def test_a_file_gives_its_setting_and_a_newline_at_its_end_does_not_count(secrets: Path) -> None:
    (secrets / "FEDIWARDEN_AUDIT__MAIL__PASSWORD").write_text(f"{PASSWORD}\n")
    (secrets / "fediwarden_tenants__example__key").write_text("a-key-of-a-tenant\n")
    settings = load_settings()
    assert settings.audit.mail.password is not None
    assert settings.audit.mail.password.get_secret_value() == PASSWORD
    key = settings.tenants["example"].key
    assert key is not None
    assert key.get_secret_value() == "a-key-of-a-tenant"


def test_the_environment_beats_a_file_which_beats_the_settings_file(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("fediwarden.toml").write_text("[gateway]\nport = 1001\ndeadline_ms = 1002\nmax_in_flight = 1003\n")
    (secrets / "FEDIWARDEN_GATEWAY__PORT").write_text("2001")
    (secrets / "FEDIWARDEN_GATEWAY__DEADLINE_MS").write_text("2002")
    monkeypatch.setenv("FEDIWARDEN_GATEWAY__PORT", "3001")
    settings = load_settings()
    assert (settings.gateway.port, settings.gateway.deadline_ms, settings.gateway.max_in_flight) == (3001, 2002, 1003)
    sources = {each.name: each.source for each in effective_settings(settings)}
    assert sources["gateway.port"] == "environment FEDIWARDEN_GATEWAY__PORT"
    assert sources["gateway.deadline_ms"] == f"file {secrets / 'FEDIWARDEN_GATEWAY__DEADLINE_MS'}"
    assert sources["gateway.max_in_flight"].endswith("fediwarden.toml")


def test_links_are_followed_as_kubernetes_makes_them(secrets: Path) -> None:
    (secrets / "..2026").mkdir()
    (secrets / "..2026" / "FEDIWARDEN_GATEWAY__PORT").write_text("2001")
    (secrets / "..data").symlink_to("..2026")
    (secrets / "FEDIWARDEN_GATEWAY__PORT").symlink_to("..data/FEDIWARDEN_GATEWAY__PORT")
    assert load_settings().gateway.port == 2001


def test_files_of_others_are_not_read(secrets: Path) -> None:
    (secrets / "postgres_password").write_bytes(b"\xff\xfe")
    assert load_settings().gateway.port == 14051


def test_what_cannot_be_used_is_named_with_the_remedy_and_never_shown(secrets: Path) -> None:
    file = secrets / "FEDIWARDEN_KAFKA__SASL_PASSWORD"

    def said() -> str:
        with pytest.raises(SettingsError) as raised:
            load_settings()
        assert PASSWORD not in "".join(traceback.format_exception(raised.value))
        return str(raised.value)

    file.write_text(" \n")
    assert said() == f"{file} is empty: write the value into it, or remove it"
    file.write_bytes(b"\xff\xfe")
    assert "is not text" in said()
    file.unlink()
    (secrets / "FEDIWARDEN_KAFKA__SASL_PASWORD").write_text(PASSWORD)
    assert "did you mean" in said()
    (secrets / "FEDIWARDEN_KAFKA__SASL_PASWORD").unlink()
    (secrets / "FEDIWARDEN_TENANTS__EXAMPLE__KEY").write_text(f"{PASSWORD} with spaces")
    assert str(secrets / "FEDIWARDEN_TENANTS__EXAMPLE__KEY") in said()
    (secrets / "FEDIWARDEN_TENANTS__EXAMPLE__KEY").unlink()
    (secrets / "FEDIWARDEN_SCANNER__MODELS").write_text("no json")
    assert "FEDIWARDEN_SCANNER__MODELS" in said()


def test_a_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(SECRETS_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=f"nowhere, which {SECRETS_VARIABLE} names, cannot be read"):
        load_settings()


def test_every_secret_is_masked_wherever_settings_are_shown(secrets: Path) -> None:
    from pydantic import SecretStr

    from fediwarden.settings import declared_settings

    secret = [name for name, field in declared_settings() if "SecretStr" in str(field.annotation)]
    assert len(secret) >= 14
    suspicious = ("password", "token", "secret", "_key", "lemmy_database")
    plain = [name for name, _ in declared_settings() if name not in secret and name.endswith(suspicious)]
    assert plain == [], "a secret is a SecretStr, or it will be shown"
    (secrets / "FEDIWARDEN_AUDIT__MAIL__PASSWORD").write_text(PASSWORD)
    settings = load_settings()
    shown = {each.name: each.value for each in effective_settings(settings)}
    assert shown["audit.mail.password"] == MASK
    assert isinstance(settings.audit.mail.password, SecretStr)
    for text in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert PASSWORD not in text
    for arguments in (["settings"], ["settings", "--json"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert PASSWORD not in result.output
    assert environment_of(settings)["FEDIWARDEN_AUDIT__MAIL__PASSWORD"] == PASSWORD  # children get it, by environment


def test_no_command_takes_a_secret_on_its_command_line() -> None:
    from typer.main import get_command

    def options(command: object, path: str = "") -> list[str]:
        found = [
            f"{path} {option}"
            for parameter in getattr(command, "params", [])
            for option in parameter.opts
            if any(word in option for word in ("key", "password", "token", "secret"))
            and not parameter.is_flag
            and not option.endswith(("-env", "-file"))
        ]
        for name, each in getattr(command, "commands", {}).items():
            found += options(each, f"{path} {name}")
        return found

    assert options(get_command(app)) == []
