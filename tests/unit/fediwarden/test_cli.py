import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fediwarden.up
from federation_audit.pages.site import Surroundings
from fediwarden import cli
from fediwarden.children import Stopped
from fediwarden.cli import scan
from fediwarden.cli.options import nested_flags
from fediwarden.settings import SettingsError, load_settings
from fediwarden.up import run_up
from schemas.keyring import Keyring
from tests.models import DATA

HEAVY = (
    "aiokafka",
    "av",
    "cryptography",
    "fastapi",
    "httpx",
    "numpy",
    "onnxruntime",
    "PIL",
    "pydantic",
    "structlog",
    "torch",
    "transformers",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting from outside; data and cache in the test's own directory."""
    for name in list(os.environ):
        if name.upper().startswith("FEDIWARDEN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FEDIWARDEN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("FEDIWARDEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fediwarden", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code if isinstance(ended.value.code, int) else 0


def test_help_answers_without_importing_anything_heavy() -> None:
    code = f"import sys, fediwarden.cli; print([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_help_names_every_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "--help") == 0
    said = capsys.readouterr().out
    for command in (
        "up",
        "gateway",
        "scanner",
        "enforcer",
        "lemmy",
        "audit",
        "scan",
        "ledger",
        "topics",
        "models",
        "policy",
        "keys",
        "lists",
        "doctor",
        "settings",
        "version",
    ):
        assert f" {command} " in said


def test_python_m_fediwarden_is_the_same_command() -> None:
    run = subprocess.run([sys.executable, "-m", "fediwarden", "version"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("fediwarden ")
    assert "Apache Kafka 4." in run.stdout


def test_a_wrong_setting_is_one_line_on_standard_error_and_exit_code_78(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDIWARDEN_GATEWAY__PROT", "1")
    assert _run(monkeypatch, "settings") == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("fediwarden: gateway.prot (environment FEDIWARDEN_GATEWAY__PROT): unknown setting")


def test_a_kafka_that_is_away_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9")
    assert _run(monkeypatch, "topics", "diff") == 1
    err = capsys.readouterr().err
    assert err.startswith("fediwarden: no Kafka at 127.0.0.1:9")
    assert err.count("\n") == 1


def test_a_service_without_a_key_file_says_how_to_get_one_and_ends_with_78(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for service in ("gateway", "scanner"):
        assert _run(monkeypatch, service) == 78
        err = capsys.readouterr().err
        assert f"key file {tmp_path / 'data' / 'keys.json'}" in err
        assert "fediwarden up" in err


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_the_config_flag_names_the_file_for_the_child_processes_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "other.toml"
    file.write_text("[gateway]\nport = 1001\n")
    monkeypatch.setenv("FEDIWARDEN_CONFIG", "")
    assert _run(monkeypatch, "settings", "--json", "--config", "other.toml") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["gateway.port"] == {"value": "1001", "source": f"file {file}"}
    assert os.environ["FEDIWARDEN_CONFIG"] == str(file)


def test_flags_become_settings_by_section_and_what_is_not_given_is_left_out() -> None:
    assert nested_flags(data_dir="d", gateway__port=1, gateway__host=None, kafka__port=2) == {
        "data_dir": "d",
        "gateway": {"port": 1},
        "kafka": {"port": 2},
    }


def test_up_starts_as_many_scanners_as_the_flag_says_else_as_the_settings_do(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    async def start(_settings: object, scanners: int, *_rest: object) -> None:
        started.append(scanners)
        raise Stopped("that is all this test wants to see")

    monkeypatch.setattr(fediwarden.up, "_start", start)
    assert _run(monkeypatch, "up") == 0
    Path("fediwarden.toml").write_text("scanners = 2\n")
    assert _run(monkeypatch, "up") == 0
    monkeypatch.setenv("FEDIWARDEN_SCANNERS", "3")
    assert _run(monkeypatch, "up") == 0
    assert _run(monkeypatch, "up", "--scanners", "0") == 0
    assert started == [1, 2, 3, 0]


def test_audit_alone_is_the_pages_and_its_options_do_not_get_lost_before_a_subcommand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = []

    async def serve(_store: object, surroundings: Surroundings) -> None:
        pages = surroundings.audit.pages
        served.append((pages.host, pages.port, sorted(surroundings.origin_tokens)))

    monkeypatch.setattr("federation_audit.pages.service.run_pages", serve)
    monkeypatch.setenv("FEDIWARDEN_TENANTS__DEFAULT__ORIGINS_TOKEN", "a-token-of-the-tests")
    assert _run(monkeypatch, "audit", "--port", "14999", "--host", "localhost") == 0
    assert served == [("localhost", 14999, ["default"])]
    assert _run(monkeypatch, "audit", "--port", "14999", "instances") == 2
    assert "behind the subcommand" in capsys.readouterr().err
    assert len(served) == 1
    assert _run(monkeypatch, "pages") == 2


def test_up_names_the_port_that_it_has_to_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDIWARDEN_AUDIT__PAGES__PORT", "0")
    assert _run(monkeypatch, "up") == 78
    assert capsys.readouterr().err.startswith("fediwarden: audit.pages.port is 0")


def test_up_refuses_more_scanners_than_the_setting_allows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "up", "--scanners", "65") == 78
    assert capsys.readouterr().err.startswith("fediwarden: scanners (a flag): input should be less than or equal to 64")


def test_keys_add_makes_a_primary_key_keeps_the_old_one_and_prints_no_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "data" / "keys.json"
    old = Keyring.load_or_create(file)
    sealed = old.seal([b"a frame"], sha256=bytes(32), tenant="default")
    assert _run(monkeypatch, "keys", "add") == 0
    said = capsys.readouterr().out
    new = Keyring.load(file)
    assert new.key_ids == (old.primary, new.primary)
    assert new.primary != old.primary
    assert new.open(sealed, sha256=bytes(32), tenant="default") == [b"a frame"]
    assert new.primary in said
    assert "scanners first" in said
    assert _run(monkeypatch, "keys", "list") == 0
    listed = capsys.readouterr().out
    assert listed.splitlines() == [old.primary, f"{new.primary}  primary"]
    assert _run(monkeypatch, "keys", "list", "--json") == 0
    as_json = capsys.readouterr().out
    assert json.loads(as_json) == [{"id": old.primary, "primary": False}, {"id": new.primary, "primary": True}]
    for key in json.loads(file.read_text())["keys"].values():
        assert key not in said + listed + as_json


def test_keys_without_a_key_file_say_how_to_get_one_and_make_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for command in ("add", "list"):
        assert _run(monkeypatch, "keys", command, "--data-dir", str(tmp_path / "other")) == 78
        assert f"key file {tmp_path / 'other' / 'keys.json'}" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("command", ["settings", "up", "gateway", "scanner", "doctor"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FEDIWARDEN_TENANTS__A__KEY", "hunter2 with spaces"),
        ("FEDIWARDEN_KAFKA", '{"security_protocol": "SASL_SSL", "sasl_password": "hunter2-hunter2"}'),
    ],
)
def test_no_command_repeats_a_secret_that_it_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert _run(monkeypatch, command) == 78
    out, err = capsys.readouterr()
    assert variable in err
    assert "hunter2" not in out + err


def test_topics_show_lists_every_topic_with_its_prefix_and_asks_no_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDIWARDEN_KAFKA__TOPIC_PREFIX", "mine.")
    assert _run(monkeypatch, "topics", "show", "--json") == 0
    names = {topic["name"] for topic in json.loads(capsys.readouterr().out)}
    assert {"mine.images", "mine.verdicts", "mine.answers", "mine.images.dead"} <= names
    assert _run(monkeypatch, "topics", "show") == 0
    table = capsys.readouterr().out
    assert all(name in table for name in names)


def test_models_that_are_not_here_are_listed_as_missing_and_fail_verification(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "models", "list", "--json") == 0
    states = {model["name"]: model["state"] for model in json.loads(capsys.readouterr().out)}
    assert states["safety-s"] == states["open-nsfw"] == "missing"
    assert _run(monkeypatch, "models", "verify") == 1
    assert "fediwarden models fetch safety-s" in capsys.readouterr().out


def test_a_checkpoint_of_ones_own_is_pinned_registered_and_verified(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "cache" / "models" / "mine"
    shutil.copytree(DATA / "microclip", folder)
    assert _run(monkeypatch, "models", "pin", str(folder), "--name", "mine", "--licence", "MIT") == 0
    (tmp_path / "own.toml").write_text(capsys.readouterr().out)
    monkeypatch.setenv("FEDIWARDEN_SCANNER__REGISTRY", str(tmp_path / "own.toml"))
    assert _run(monkeypatch, "models", "list", "--json") == 0
    states = {model["name"]: model["state"] for model in json.loads(capsys.readouterr().out)}
    assert states["mine"] == "ready"
    assert states["clip"] == "missing"
    (folder / "tokenizer.json").write_text("{}")
    assert _run(monkeypatch, "models", "verify", "mine") == 1
    assert "tokenizer.json is not the registered file of 'mine'" in capsys.readouterr().out.replace("\n", " ")
    (folder / "tokenizer.json").unlink()
    assert _run(monkeypatch, "models", "pin", str(folder), "--name", "mine") == 78


def test_an_unknown_model_is_refused_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "models", "verify", "safety-z") == 78
    assert "safety-s" in capsys.readouterr().err


def test_scan_says_when_no_gateway_answers_and_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert _run(monkeypatch, "scan", "a.jpg", "--url", "http://127.0.0.1:9") == 2
    err = capsys.readouterr().err
    assert "no gateway answers at http://127.0.0.1:9" in err
    assert "fediwarden up" in err


def test_scan_walks_folders_for_images_and_videos_and_takes_named_files_as_they_are(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.txt", "deep/c.webm", "deep/d", "deep/er/e.avif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = set(scan.walk([tmp_path, tmp_path / "b.txt"]))
    assert found == {tmp_path / name for name in ("a.JPG", "b.txt", "deep/c.webm", "deep/er/e.avif")}


def test_scan_of_a_folder_without_pictures_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert _run(monkeypatch, "scan", str(tmp_path)) == 2
    assert f"no images or videos in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([scan.Outcome("a", decision="accept", accepted=True)], 0),
        ([scan.Outcome("a", decision="review", accepted=True)], 0),
        ([scan.Outcome("a", decision="accept", accepted=True), scan.Outcome("b", decision="reject")], 1),
        ([scan.Outcome("a", error="damaged"), scan.Outcome("b", decision="reject")], 2),
    ],
)
def test_scan_ends_with_1_for_a_rejection_and_2_for_an_error(outcomes: list[scan.Outcome], code: int) -> None:
    assert scan._exit_code(outcomes) == code


def test_scan_does_not_hide_among_many_what_was_accepted_without_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    judged = [scan.Outcome(f"{n}.jpg", decision="accept", accepted=True, answered_by="verdict") for n in range(99)]
    late = scan.Outcome("late.jpg", decision="accept", accepted=True, answered_by="deadline")
    scan._print_table([*judged, late])
    shown = capsys.readouterr().out
    assert "late.jpg" in shown
    assert "98.jpg" not in shown
    assert "100 files: 99 accept, 1 accept without a verdict" in shown


def test_up_wants_a_port_it_can_tell_about(tmp_path: Path) -> None:
    settings = load_settings({"data_dir": tmp_path, "gateway": {"port": 0}})
    with pytest.raises(SettingsError, match="--port"):
        asyncio.run(run_up(settings))
