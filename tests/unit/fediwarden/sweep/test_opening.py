"""What can be named as a source, and what is said of everything else."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from fediwarden.sweep import opening
from fediwarden.sweep.errors import MissingExtra, SourceUnknown
from fediwarden.sweep.opening import open_source
from fediwarden.sweep.settings import SweepSettings
from fediwarden.sweep.source import Source
from gateway.settings import TenantSettings

WITH_PICT_RS = TenantSettings(pict_rs="http://127.0.0.1:8080", pict_rs_api_key=SecretStr("a-key"))


def _open(
    named: str, *, of: TenantSettings = WITH_PICT_RS, quarantine: str | None = None, **settings: object
) -> Source:
    return open_source(
        named,
        SweepSettings(**settings),  # type: ignore[arg-type]
        tenant="main",
        of=of,
        quarantine=quarantine,
    )


@pytest.mark.parametrize(
    ("named", "of", "says"),
    [
        ("pict-rs", TenantSettings(), r"tenants\.main\.pict_rs is not set"),
        ("pict-rs", TenantSettings(pict_rs="http://127.0.0.1:8080"), r"tenants\.main\.pict_rs_api_key is not set"),
        ("/nowhere/at/all", WITH_PICT_RS, "there is no folder /nowhere/at/all"),
        ("ftp://host/files", WITH_PICT_RS, "ftp:// is no store"),
    ],
)
def test_what_cannot_be_a_source_is_said_with_a_remedy(named: str, of: TenantSettings, says: str) -> None:
    with pytest.raises(SourceUnknown, match=says) as error:
        _open(named, of=of)
    assert "s3://bucket/prefix" in str(error.value)


def test_nothing_is_quarantined_within_a_pict_rs() -> None:
    with pytest.raises(SourceUnknown, match="--quarantine"):
        _open("pict-rs", quarantine="somewhere")


@pytest.mark.parametrize("prefix", ["", "/", "..", "a/../..", "{above}"])
def test_a_quarantine_that_contains_what_is_swept_or_leads_out_of_it_is_refused(tmp_path: Path, prefix: str) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(SourceUnknown, match="--quarantine"):
        _open(str(tmp_path), quarantine=prefix.format(above=tmp_path.parent))


def test_passwords_do_not_go_on_the_command_line_and_are_not_repeated() -> None:
    pytest.importorskip("s3fs")
    pytest.importorskip("sshfs")
    for named in ("sftp://ada:hidden@host/files", "s3://key:hidden@bucket/files"):
        with pytest.raises(SourceUnknown, match="FEDIWARDEN_SWEEP__") as error:
            _open(named)
        assert "hidden" not in str(error.value)
    with pytest.raises(SourceUnknown, match=r"sweep\.s3_secret is not set"):
        _open("s3://bucket", s3_key_id=SecretStr("id"))
    with pytest.raises(SourceUnknown, match=r"sweep\.sftp_identity"):
        _open("sftp://host/files", sftp_identity=Path("/nowhere/key"))
    with pytest.raises(SourceUnknown, match="whole path"):
        _open("sftp://host")


def test_identities_tell_stores_apart_and_the_name_has_no_secret(tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    pytest.importorskip("sshfs")
    secret = {"s3_key_id": SecretStr("id"), "s3_secret": SecretStr("hidden")}
    made = [
        _open("pict-rs"),
        _open(str(tmp_path)),
        _open("s3://media", **secret),
        _open("s3://media/cache", **secret),
        _open("s3://media", s3_endpoint="http://127.0.0.1:9", **secret),
        _open("sftp://ada@host/media", sftp_password=SecretStr("hidden")),
        _open("sftp://ada@host:2222/media"),
    ]
    assert len({each.identity for each in made}) == len(made)
    assert not any("hidden" in each.name + each.identity or "a-key" in each.name + each.identity for each in made)


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    for named in (str(tmp_path), "s3://media", "sftp://host/media"):
        with pytest.raises(MissingExtra, match=r"python\S* -m pip install 'fediwarden\[sweep\]'"):
            _open(named)
    assert _open("pict-rs").name == "pict-rs http://127.0.0.1:8080"
