"""The commands as a person runs them, against a real Kafka, a real gateway and a real scanner."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fediwarden.cli.scan import CONCURRENCY
from schemas.broker import BrokerSettings
from tests.kafka import cache_dir
from tests.models import models_dir
from tests.pictures import make
from tests.processes import Pipeline
from tests.stand_ins import accepted_picture, rejected_picture

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


def _run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FEDIWARDEN_")}
    return subprocess.run(
        [sys.executable, "-m", "fediwarden", *arguments],
        env=clean | {"FEDIWARDEN_CACHE_DIR": str(cache_dir())} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _at(kafka: BrokerSettings, prefix: str | None = None) -> dict[str, str]:
    return {
        "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "FEDIWARDEN_KAFKA__TOPIC_PREFIX": prefix or kafka.topic_prefix,
    }


@pytest.fixture(scope="module")
def pipeline(
    make_topics: Callable[[], BrokerSettings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, str], str, Pipeline]]:
    """A gateway and a scanner that are ready: the commands' environment, the gateway's URL, the processes."""
    folder = tmp_path_factory.mktemp("pipeline")
    with Pipeline(make_topics(), folder, FEDIWARDEN_GATEWAY__DEADLINE_MS="30000") as processes:
        _, url = processes.start_gateway()
        processes.start_scanner()
        environment = processes.environment | {"FEDIWARDEN_GATEWAY__PORT": url.rpartition(":")[2]}
        yield environment, url, processes


def test_topics_are_missing_then_applied_then_as_declared(kafka: BrokerSettings) -> None:
    environment = _at(kafka, "cli-topics.")
    missing = _run(environment, "topics", "diff")
    assert missing.returncode == 1
    assert "cli-topics.images: topic is missing" in missing.stdout
    assert "fediwarden topics apply" in missing.stdout
    applied = _run(environment, "topics", "apply")
    assert applied.returncode == 0, applied.stderr
    assert "cli-topics.images: created" in applied.stdout
    same = _run(environment, "topics", "diff", "--json")
    assert (same.returncode, json.loads(same.stdout)) == (0, [])
    again = _run(environment, "topics", "apply")
    assert again.stdout == "all topics are as declared\n"


def test_a_service_against_missing_topics_names_the_command_and_ends_with_78(
    kafka: BrokerSettings, tmp_path: Path
) -> None:
    with Pipeline(kafka.model_copy(update={"topic_prefix": "cli-none."}), tmp_path) as processes:
        models_dir()
        for service in ("gateway", "scanner"):
            process = processes.start(service, FEDIWARDEN_GATEWAY__PORT="0")
            assert process.wait(60) == 78
            assert "fediwarden topics apply" in process.log
            assert "Traceback" not in process.log


def test_scan_shows_what_is_rejected_and_what_cannot_be_judged(
    pipeline: tuple[dict[str, str], str, Pipeline], tmp_path: Path
) -> None:
    environment, url, _ = pipeline
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2 * CONCURRENCY):
        (folder / f"good{number}.jpg").write_bytes(accepted_picture(number))
    good = _run(environment, "scan", str(folder))
    assert good.returncode == 0, good.stderr + good.stdout
    assert f"{2 * CONCURRENCY} files: {2 * CONCURRENCY} accept" in good.stdout

    (folder / "clip.webm").write_bytes(make("webm-vp9"))
    (folder / "bad.jpg").write_bytes(rejected_picture())
    bad = _run(environment, "scan", "--json", "--url", url, str(folder))
    assert bad.returncode == 1, bad.stderr + bad.stdout
    outcomes = {Path(row["file"]).name: row for row in map(json.loads, bad.stdout.splitlines())}
    assert len(outcomes) == 2 * CONCURRENCY + 2
    assert outcomes["bad.jpg"]["decision"] == "reject"
    assert outcomes["bad.jpg"]["rules"]
    assert outcomes["clip.webm"]["accepted"] is True
    assert bad.stderr == ""

    (folder / "broken.png").write_bytes(b"this is no picture")
    broken = _run(environment, "scan", str(folder))
    assert broken.returncode == 2
    assert "cannot be read as an image" in broken.stdout
    assert "1 errors" in broken.stdout


def test_scan_with_a_wrong_key_says_which_setting_it_is_about(
    pipeline: tuple[dict[str, str], str, Pipeline], tmp_path: Path
) -> None:
    environment, _, _ = pipeline
    (tmp_path / "a.jpg").write_bytes(accepted_picture())
    wrong = environment | {"MY_KEY": "no-such-key"}
    refused = _run(wrong, "scan", "--key-env", "MY_KEY", str(tmp_path / "a.jpg"))
    assert refused.returncode == 2
    assert "no tenant has this key" in refused.stderr
    assert "no-such-key" not in refused.stderr


def test_scan_sends_the_key_of_the_only_tenant(fresh_kafka: BrokerSettings, tmp_path: Path) -> None:
    with Pipeline(
        fresh_kafka, tmp_path, FEDIWARDEN_TENANTS__ONLY__KEY="the-only-key", FEDIWARDEN_GATEWAY__DEADLINE_MS="300"
    ) as processes:
        _, url = processes.start_gateway()
        (tmp_path / "a.jpg").write_bytes(accepted_picture())
        environment = processes.environment | {"FEDIWARDEN_GATEWAY__PORT": url.rpartition(":")[2]}
        scanned = _run(environment, "scan", "--json", str(tmp_path / "a.jpg"))
    assert scanned.returncode == 0, scanned.stderr
    assert json.loads(scanned.stdout)["answered_by"] == "deadline"


def test_doctor_finds_everything_well_beside_a_running_pipeline(
    pipeline: tuple[dict[str, str], str, Pipeline],
) -> None:
    environment, url, _ = pipeline
    looked = _run(environment, "doctor", "--json", "--pict-rs", "http://127.0.0.1:9")
    findings = json.loads(looked.stdout)
    health = {finding["subject"]: finding["health"] for finding in findings}
    assert looked.returncode == 1  # pict-rs is not there
    assert health.pop("pict-rs") == "FAIL"
    assert health.pop("clock") in ("ok", "warn")  # whether it is synchronised is this machine's matter
    assert health.pop("disk") in ("ok", "warn")
    assert health.pop("sandbox") in ("ok", "warn")
    of_audit = {name: health.pop(name) for name in ("audit", "accounts", "pages", "intake", "alerts")}
    assert of_audit == {
        "audit": "warn",
        "accounts": "warn",
        "pages": "ok",
        "intake": "ok",
        "alerts": "ok",
    }  # not run here
    assert health == {"key file": "ok", "models": "ok", "kafka": "ok", "topics": "ok", "gateway": "ok"}
    assert f"ready at {url}" in looked.stdout


def test_settings_name_each_source_and_hide_the_secret(tmp_path: Path) -> None:
    file = tmp_path / "fediwarden.toml"
    file.write_text('[tenants.a]\nkey = "hunter2-hunter2"\n[gateway]\nport = 1001\n')
    shown = _run({"FEDIWARDEN_GATEWAY__DEADLINE_MS": "900"}, "settings", "--config", str(file))
    assert shown.returncode == 0, shown.stderr
    assert "hunter2" not in shown.stdout
    lines = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines()}
    assert lines["gateway.port"] == ["1001", "file", str(file)]
    assert lines["gateway.deadline_ms"] == ["900", "environment", "FEDIWARDEN_GATEWAY__DEADLINE_MS"]
    assert lines["tenants.a.key"] == ["********", "file", str(file)]
    assert lines["log.level"] == ["info", "default"]
