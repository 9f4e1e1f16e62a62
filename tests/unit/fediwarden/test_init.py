import os
import re
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fediwarden import environment_file
from fediwarden.cli import app
from fediwarden.environment_file import ADMIN_TOKEN, API_KEY, CLUSTER_ID, DOMAIN, NAME, TENANT_KEY, EnvironmentFileError
from fediwarden.settings import PREFIX, load_settings


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting from outside."""
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def test_the_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = environment_file.make(tmp_path)
    finally:
        os.umask(before)
    assert path == tmp_path / NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [NAME]


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("mine")
    result = CliRunner().invoke(app, ["init", str(tmp_path)])
    assert isinstance(result.exception, EnvironmentFileError)
    assert "was left as it is" in str(result.exception)
    assert (tmp_path / NAME).read_text() == "mine"


def test_no_two_files_share_a_secret_and_all_are_long(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        environment_file.make(tmp_path / name)
        made.append(environment_file.read(tmp_path / name))
    for name in (TENANT_KEY, ADMIN_TOKEN, CLUSTER_ID):
        assert made[0][name] != made[1][name]
    assert re.fullmatch(r"[0-9a-f]{48}", made[0][TENANT_KEY])
    assert made[0][TENANT_KEY] != made[0][ADMIN_TOKEN]
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{21}", made[0][CLUSTER_ID])


def test_the_settings_take_every_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment_file.make(tmp_path, domain="Lemmy.Example")
    values = environment_file.read(tmp_path) | {API_KEY: "an-api-key"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    tenant = settings.tenants["default"]
    assert tenant.key is not None
    assert tenant.key.get_secret_value() == values[TENANT_KEY]
    assert tenant.pict_rs == "http://pictrs:8080"
    assert tenant.domain == "lemmy.example"
    assert tenant.lemmy_database is None
    assert settings.gateway.admin_token is not None


def test_a_domain_that_is_none_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFileError, match="--domain"):
        environment_file.make(tmp_path, domain="not a domain")
    assert not (tmp_path / NAME).exists()


def test_rotation_changes_the_secrets_and_no_other_line(tmp_path: Path) -> None:
    path = environment_file.make(tmp_path)
    filled = path.read_text().replace(f"{API_KEY}=", f"{API_KEY}='it$'").replace(f"{DOMAIN}=", f"{DOMAIN}=a.example")
    path.write_text(filled + "# a note of mine\n")
    before = path.read_text().splitlines()
    environment_file.rotate(tmp_path)
    after = path.read_text().splitlines()
    changed = [old for old, new in zip(before, after, strict=True) if old != new]
    assert [line.partition("=")[0] for line in changed] == [TENANT_KEY, ADMIN_TOKEN]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert environment_file.read(tmp_path)[API_KEY] == "it$"
    assert [each.name for each in tmp_path.iterdir()] == [NAME]


def test_what_others_can_read_is_not_read(tmp_path: Path) -> None:
    environment_file.make(tmp_path).chmod(0o644)
    with pytest.raises(EnvironmentFileError, match="chmod 600"):
        environment_file.rotate(tmp_path)


def test_what_is_printed_holds_the_lines_for_pict_rs(tmp_path: Path) -> None:
    first = CliRunner().invoke(app, ["init", str(tmp_path)])
    again = CliRunner().invoke(app, ["init", "--show", str(tmp_path)])
    assert (first.exit_code, again.exit_code) == (0, 0)
    key = environment_file.read(tmp_path)[TENANT_KEY]
    line = f"PICTRS__MEDIA__EXTERNAL_VALIDATION=http://10.140.51.250:14051/api/v1/scan/{key}"
    assert line in first.output
    assert line in again.output
    assert environment_file.read(tmp_path)[ADMIN_TOKEN] not in first.output
