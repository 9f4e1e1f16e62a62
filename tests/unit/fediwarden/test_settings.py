import json
import os
import re
import traceback
from pathlib import Path

import pytest

from fediwarden.reference.settings import BEGIN, END, settings_reference, variable_of
from fediwarden.settings import (
    MASK,
    Settings,
    SettingsError,
    declared_settings,
    effective_settings,
    environment_of,
    load_settings,
)

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No setting from outside, and a current directory of the test's own."""
    for name in list(os.environ):
        if name.upper().startswith("FEDIWARDEN_") or name.startswith("XDG_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def _source(settings: Settings, name: str, flags: dict[str, object] | None = None) -> str:
    return next(each.source for each in effective_settings(settings, flags) if each.name == name)


def test_without_any_source_everything_has_its_default(bare: Path) -> None:
    settings = load_settings()
    assert settings.gateway.port == 14051
    assert settings.kafka.port == 14092
    assert settings.data_dir == bare / "data" / "fediwarden"
    assert settings.models_dir == bare / "cache" / "fediwarden" / "models"
    assert settings.audit.pages.port == 14052
    assert {each.source for each in effective_settings(settings)} == {"default"}


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("fediwarden.toml").write_text("[gateway]\nport = 1001\ndeadline_ms = 1002\nmax_in_flight = 1003\n")
    monkeypatch.setenv("FEDIWARDEN_GATEWAY__PORT", "2001")
    monkeypatch.setenv("FEDIWARDEN_GATEWAY__DEADLINE_MS", "2002")
    flags = {"gateway": {"port": 3001}}
    settings = load_settings(flags)
    assert settings.gateway.port == 3001
    assert settings.gateway.deadline_ms == 2002
    assert settings.gateway.max_in_flight == 1003
    assert settings.gateway.keep_alive_s == 120
    assert _source(settings, "gateway.port", flags) == "flag"
    assert _source(settings, "gateway.deadline_ms", flags) == "environment FEDIWARDEN_GATEWAY__DEADLINE_MS"
    assert _source(settings, "gateway.max_in_flight", flags) == "file fediwarden.toml"
    assert _source(settings, "gateway.keep_alive_s", flags) == "default"


def test_a_section_given_as_json_is_named_as_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIWARDEN_GATEWAY", '{"port": 2001}')
    settings = load_settings()
    assert settings.gateway.port == 2001
    assert _source(settings, "gateway.port") == "environment FEDIWARDEN_GATEWAY"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIWARDEN_GATEWAY__PORT", "")
    assert load_settings().gateway.port == 14051


def test_the_file_in_the_data_directory_is_read_and_the_one_here_goes_before_it(tmp_path: Path) -> None:
    data_dir = tmp_path / "elsewhere"
    data_dir.mkdir()
    (data_dir / "fediwarden.toml").write_text("[gateway]\nport = 1001\n")
    assert load_settings({"data_dir": data_dir}).gateway.port == 1001
    Path("fediwarden.toml").write_text("[gateway]\nport = 1002\n")
    assert load_settings({"data_dir": data_dir}).gateway.port == 1002


def test_a_named_file_goes_before_all_others_and_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("fediwarden.toml").write_text("[gateway]\nport = 1002\n")
    named = tmp_path / "named.toml"
    monkeypatch.setenv("FEDIWARDEN_CONFIG", str(named))
    with pytest.raises(SettingsError, match=r"there is no file .*named\.toml; FEDIWARDEN_CONFIG \(or --config\)"):
        load_settings()
    named.write_text("[gateway]\nport = 1001\n")
    assert load_settings().gateway.port == 1001


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("FEDIWARDEN_GATEWAY__PROT", "gateway.prot (environment FEDIWARDEN_GATEWAY__PROT): {}gateway.port?"),
        ("FEDIWARDEN_GATWAY__PORT", "environment FEDIWARDEN_GATWAY__PORT: {}FEDIWARDEN_GATEWAY__PORT?"),
        ("FEDIWARDEN_TENANTS__A__KYE", "tenants.a.kye (environment FEDIWARDEN_TENANTS__A__KYE): {}tenants.a.key?"),
        ("FEDIWARDEN_GATEWAY__FRAMES__WORKRES", "{}gateway.frames.workers?"),
        ("FEDIWARDEN_SCANNERS__DEVICE", "environment FEDIWARDEN_SCANNERS__DEVICE: {}FEDIWARDEN_SCANNER__DEVICE?"),
    ],
)
def test_an_unknown_variable_is_refused_and_the_closest_setting_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, said: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert said.format("unknown setting; did you mean ") in str(refused.value)


def test_an_unknown_name_in_the_file_is_refused_with_the_file_and_the_closest_setting() -> None:
    Path("fediwarden.toml").write_text('[gateway]\nhots = "127.0.0.1"\n')
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert str(refused.value) == "gateway.hots (fediwarden.toml): unknown setting; did you mean gateway.host?"


def test_a_wrong_value_is_refused_with_its_setting_and_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIWARDEN_GATEWAY__PORT", "99999")
    with pytest.raises(
        SettingsError, match=r"^gateway\.port \(environment FEDIWARDEN_GATEWAY__PORT\): input should be"
    ):
        load_settings()


def test_every_fault_is_named_at_once() -> None:
    Path("fediwarden.toml").write_text('[gateway]\nport = "x"\n[log]\nlevel = "loud"\n')
    with pytest.raises(SettingsError, match=r"gateway\.port .*; log\.level "):
        load_settings()


def test_what_is_no_toml_is_refused_with_the_line() -> None:
    Path("fediwarden.toml").write_text("[gateway]\nport = \n")
    with pytest.raises(SettingsError, match=r"fediwarden\.toml: not valid TOML: .*line 2"):
        load_settings()


def test_what_is_no_json_in_a_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIWARDEN_GATEWAY", "{port: 1}")
    with pytest.raises(SettingsError, match=r"^environment FEDIWARDEN_GATEWAY: lists and tables are written as JSON"):
        load_settings()


def test_a_list_that_is_no_json_is_refused_with_how_to_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIWARDEN_SCANNER__MODELS", "safety-s")
    with pytest.raises(SettingsError, match=r'^environment FEDIWARDEN_SCANNER__MODELS: .*JSON, such as \["a", "b"\]'):
        load_settings()


def test_a_refused_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIWARDEN_TENANTS__DEFAULT__KEY", "with a space")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert "tenants.default.key" in str(refused.value)
    assert "with a space" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FEDIWARDEN_TENANTS__A__KEY", "hunter2 with spaces"),
        ("FEDIWARDEN_TENANTS__A", '"hunter2-hunter2"'),
        ("FEDIWARDEN_TENANTS", '{"a": {"key": "hunter2-hunter2"}, "b": {"key": "hunter2-hunter2"}}'),
        ("FEDIWARDEN_TENANTS", '{"a": {"key": "hunter2-hunter2"'),
        ("FEDIWARDEN_TENANTS__A__PICT_RS", "http://admin:hunter2@127.0.0.1:8080"),
        ("FEDIWARDEN_KAFKA__SASL_PASWORD", "hunter2-hunter2"),
        ("FEDIWARDEN_KAFKA__SASL_PASSWORD__X", "hunter2-hunter2"),
        ("FEDIWARDEN_KAFKA", '{"sasl_password": ["hunter2-hunter2"]}'),
        ("FEDIWARDEN_KAFKA", '{"security_protocol": "SASL_SSL", "sasl_password": "hunter2-hunter2"}'),
        ("FEDIWARDEN_KAFKA", '{"ssl_key_password": "hunter2-hunter2", "ssl_cert_file": "cert.pem"}'),
        ("FEDIWARDEN_KAFKA_SASL_PASSWORD", "hunter2-hunter2"),
    ],
)
def test_no_error_repeats_a_secret_not_even_its_traceback(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    told = "".join(traceback.format_exception(refused.value))
    assert variable.split("_")[1].lower() in told.lower()  # it does say which section is at fault
    assert "hunter2" not in told


def test_no_error_repeats_a_secret_of_the_file() -> None:
    Path("fediwarden.toml").write_text("[tenants.a]\nkey = 1234567891234567\n")
    with pytest.raises(SettingsError, match=r"^tenants\.a\.key \(fediwarden\.toml\): ") as refused:
        load_settings()
    assert "1234567891234567" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("address", ["http://127.0.0.1:8080", "https://pictrs.example/store", "http://[::1]:8080/"])
def test_the_address_of_a_pict_rs_is_kept_as_it_is_written(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("FEDIWARDEN_TENANTS__A__PICT_RS", address)
    assert load_settings().tenants["a"].pict_rs == address


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8080", "ftp://a", "http://", "http://a:http", "http://a:99999", "http://a b", "http://a?b=c"]
)
def test_what_is_no_address_of_a_pict_rs_is_refused_with_an_example(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("FEDIWARDEN_TENANTS__A__PICT_RS", address)
    with pytest.raises(SettingsError, match=r"^tenants\.a\.pict_rs \(environment .*such as http://127\.0\.0\.1:8080$"):
        load_settings()


def test_an_api_key_of_no_pict_rs_is_refused_and_so_is_one_that_no_header_can_carry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEDIWARDEN_TENANTS__A__PICT_RS_API_KEY", "hunter2")
    with pytest.raises(SettingsError, match="pict_rs_api_key needs pict_rs"):
        load_settings()
    monkeypatch.setenv("FEDIWARDEN_TENANTS__A__PICT_RS", "http://127.0.0.1:8080")
    assert load_settings().tenants["a"].pict_rs_api_key is not None
    monkeypatch.setenv("FEDIWARDEN_TENANTS__A__PICT_RS_API_KEY", "hunter2\n")
    with pytest.raises(SettingsError, match="an API key travels in a header"):
        load_settings()


@pytest.mark.parametrize("checks", ["[5, 5]", "[0, 5]", "[30, 5]", "[]"])
def test_looks_of_the_enforcer_that_do_not_follow_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, checks: str
) -> None:
    monkeypatch.setenv("FEDIWARDEN_ENFORCER__CHECKS_S", checks)
    with pytest.raises(SettingsError, match=r"^enforcer\.checks_s \(environment FEDIWARDEN_ENFORCER__CHECKS_S\)"):
        load_settings()


def test_tenants_that_cannot_be_told_apart_are_refused() -> None:
    Path("fediwarden.toml").write_text("[tenants.a]\n[tenants.b]\n")
    with pytest.raises(SettingsError, match=r"tenants\.a and tenants\.b have no key and overlapping networks"):
        load_settings()


def test_secrets_are_masked_where_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIWARDEN_TENANTS__DEFAULT__KEY", "hunter2-hunter2")
    monkeypatch.setenv("FEDIWARDEN_KAFKA__SASL_PASSWORD", "hunter2")
    settings = load_settings()
    shown = {each.name: each.value for each in effective_settings(settings)}
    assert shown["tenants.default.key"] == shown["kafka.sasl_password"] == MASK
    assert "hunter2" not in json.dumps(shown)
    assert "hunter2" not in repr(settings)


def test_the_environment_of_a_child_gives_it_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flags = {
        "data_dir": tmp_path / "d",
        "gateway": {"port": 3001, "frames": {"workers": 3}},
        "scanner": {"models": ("safety-s",), "archive": False},
        "tenants": {"a": {"key": "a-secret-of-ours", "networks": ("10.0.0.0/8", "::1/128")}},
        "kafka": {"bootstrap_servers": "one:9092,two:9092"},
    }
    settings = load_settings(flags)
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_a_relative_data_directory_is_made_absolute_and_a_tilde_is_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    settings = load_settings({"data_dir": "~/warden", "cache_dir": "cache"})
    assert settings.data_dir == Path("/home/someone/warden")
    assert settings.cache_dir == Path.cwd() / "cache"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:14051"),
        ("0.0.0.0", "http://127.0.0.1:14051"),
        ("::", "http://[::1]:14051"),
        ("10.1.2.3", "http://10.1.2.3:14051"),
    ],
)
def test_the_gateway_is_reached_by_an_address_that_can_be_connected_to(host: str, url: str) -> None:
    assert load_settings({"gateway": {"host": host}}).gateway_url == url


def test_every_setting_has_a_description_of_its_own() -> None:
    undescribed = [name for name, field in declared_settings() if len(field.description or "") < 10]
    assert undescribed == []


def test_every_setting_is_documented_as_it_is_declared() -> None:
    text = DOCS.read_text()
    missing = [name for name, _ in declared_settings() if f"`{variable_of(name)}`" not in text]
    assert missing == []
    held = text.partition(BEGIN)[2].partition(END)[0].strip()
    assert held == settings_reference().strip(), "out of date: make reference"


def test_every_variable_of_others_that_is_read_is_documented() -> None:
    sources = [file for room in ("fediwarden", "gateway", "scanner", "schemas") for file in (ROOT / room).rglob("*.py")]
    read = {name for file in sources for name in re.findall(r'os\.environ\.get\("([A-Z_]+)"', file.read_text())}
    assert {"JAVA_HOME", "KAFKA_HOME", "HF_ENDPOINT"} <= read
    written = DOCS.read_text().partition(BEGIN)[0]
    assert [name for name in sorted(read) if f"`{name}`" not in written] == []


def test_a_table_of_plain_values_comes_through_the_environment_as_it_does_from_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("fediwarden.toml").write_text('[scanner.policies]\nlittle = "strict"\n"a-b" = "own.toml"\n')
    settings = load_settings()
    assert settings.scanner.policies == {"little": Path("strict"), "a-b": Path("own.toml")}
    variables = environment_of(settings)
    Path("fediwarden.toml").unlink()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load_settings().scanner.policies == settings.scanner.policies
    assert _source(load_settings(), "scanner.policies") == "environment FEDIWARDEN_SCANNER__POLICIES"


def test_a_policy_for_what_is_no_tenants_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIWARDEN_SCANNER__POLICIES", '{"Not a name": "strict"}')
    with pytest.raises(SettingsError, match=r"scanner\.policies"):
        load_settings()


TENANTS = '[tenants.artists]\nkey = "0123456789abcdef"\n[tenants.default]\n'


@pytest.mark.parametrize(
    ("name", "remedy"), [("artsts", "did you mean artists?"), ("zzz", "the tenants are artists, default")]
)
def test_a_policy_for_a_tenant_that_is_not_there_is_refused_with_the_nearest_that_is(name: str, remedy: str) -> None:
    Path("fediwarden.toml").write_text(f'{TENANTS}[scanner.policies]\nartists = "strict"\n{name} = "observe"\n')
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert str(refused.value) == f"scanner.policies.{name}: there is no tenant {name!r}; {remedy}"


def test_a_scanner_that_is_told_of_no_tenants_may_have_policies_for_any() -> None:
    Path("fediwarden.toml").write_text('[scanner.policies]\nartsts = "strict"\n')
    assert load_settings().scanner.policies == {"artsts": Path("strict")}
    Path("fediwarden.toml").write_text(f'{TENANTS}[scanner.policies]\nartists = "strict"\n')
    assert load_settings().scanner.policies == {"artists": Path("strict")}


@pytest.mark.parametrize(
    ("given", "port"),
    [
        ({}, 14052),
        ({"GATEWAY__PORT": "15000"}, 15001),
        ({"GATEWAY__PORT": "65535"}, 65534),
        ({"GATEWAY__PORT": "0"}, 14052),
        ({"GATEWAY__PORT": "15000", "AUDIT__PAGES__PORT": "14052"}, 14052),
    ],
)
def test_the_pages_stand_beside_the_gateway_unless_they_are_told_where(bare, monkeypatch, given, port):
    for name, value in given.items():
        monkeypatch.setenv(f"FEDIWARDEN_{name}", value)
    assert load_settings({}).audit.pages.port == port
