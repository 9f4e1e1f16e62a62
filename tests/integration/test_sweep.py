"""`fediwarden sweep` as a person runs it: real Kafka, gateway and scanner, real stores."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytest.importorskip("sshfs")

from schemas.broker import BrokerSettings
from tests.kafka import cache_dir
from tests.object_stores import ObjectStore, find_sshd, running_s3, running_sshd
from tests.processes import Pipeline, Process, wait_until
from tests.stand_ins import accepted_picture, rejected_picture

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(480)]

GOOD, BAD = 12, 3


class Here:
    """A pipeline, and the command in its environment. `restart` starts its gateway anew, where it was."""

    def __init__(self, gateway: Process, restart: Callable[[], Process], environment: dict[str, str]) -> None:
        self.gateway, self.restart = gateway, restart
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FEDIWARDEN_")}
        self.environment = clean | {"FEDIWARDEN_CACHE_DIR": str(cache_dir())} | environment

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "fediwarden", "sweep", *arguments],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments, **environment)
        out, error = process.communicate(timeout=240)
        assert "Traceback" not in error, error
        return subprocess.CompletedProcess(arguments, process.returncode, out, error)

    def show(self, *arguments: str, **environment: str) -> dict[str, Any]:
        shown = self.run(*arguments, "--show", "--json", **environment)
        document: dict[str, Any] = json.loads(shown.stdout)
        return document


@pytest.fixture(scope="module")
def here(make_topics: Callable[[], BrokerSettings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("pipeline")
    with Pipeline(make_topics(), folder, FEDIWARDEN_GATEWAY__DEADLINE_MS="30000") as processes:
        gateway, url = processes.start_gateway()
        processes.start_scanner()
        port = {"FEDIWARDEN_GATEWAY__PORT": url.rpartition(":")[2]}
        yield Here(gateway, lambda: processes.start("gateway", **port), processes.environment | port)


def _fill(folder: Path, seed: int) -> set[str]:
    """Good ones, a text, a copy, and bad ones: the paths of the bad."""
    (folder / "deep").mkdir(parents=True)
    for number in range(GOOD):
        (folder / f"good-{number:02}.jpg").write_bytes(accepted_picture(seed + number))
    (folder / "notes.txt").write_text("not an image")
    bad = {f"deep/bad-{number}.jpg" for number in range(BAD)}
    for number, path in enumerate(sorted(bad)):
        (folder / path).write_bytes(rejected_picture(seed + number))
    (folder / "copy.jpg").write_bytes(rejected_picture(seed))
    return bad | {"copy.jpg"}


def _paths(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


def test_a_folder_is_reported_on_then_cleaned_after_kill_9_and_a_pause(here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    bad = _fill(folder, 100)
    before = _paths(folder)
    report = here.run(str(folder), "--rate", "50", "--json")
    assert (report.returncode, _paths(folder)) == (1, before), report.stderr
    shown = json.loads(report.stdout)
    assert {(each["path"], each["outcome"]) for each in shown["found"]} == {(path, "left") for path in bad}
    expected = {"accepted": GOOD, "rejected": BAD + 1, "skipped": 1, "duplicate": 1, "listed": len(before)}
    assert shown["counts"] == expected

    for number, end in enumerate((signal.SIGKILL, signal.SIGINT)):
        process = here.start(str(folder), "--apply", "--rate", "1")
        wait_until(lambda number=number: len(_paths(folder)) < len(before) - number, "something removed", 120)
        process.send_signal(end)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == (-9 if end is signal.SIGKILL else 130), out
    last = here.run(str(folder), "--apply", "--rate", "50", "--json")
    assert last.returncode == 0, last.stdout + last.stderr
    assert _paths(folder) == before - bad
    assert {(each["path"], each["outcome"]) for each in json.loads(last.stdout)["found"]} == {
        (path, "removed") for path in bad
    }


@pytest.mark.long
def test_a_gateway_that_is_killed_in_the_middle_loses_nothing(here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    bad = _fill(folder, 500)
    process = here.start(str(folder), "--rate", "2")
    assert process.stdout is not None and process.stdout.readline() == "rejected (left): copy.jpg\n"
    here.gateway.kill()
    time.sleep(2)
    here.gateway = here.restart()
    _, error = process.communicate(timeout=240)
    assert process.returncode == 1 and "Waiting for it" in error, error
    shown = here.show(str(folder))
    assert {each["path"] for each in shown["found"]} == bad
    assert shown["counts"] == {"accepted": GOOD, "rejected": BAD + 1, "skipped": 1, "duplicate": 1, "listed": 17}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["s3", "sshd"])
def test_what_is_bad_in_a_bucket_or_on_another_machine_is_quarantined(here: Here, tmp_path: Path, kind: str) -> None:
    sshd = find_sshd()
    if kind == "sshd" and sshd is None:
        pytest.skip("no sshd: sh tests/openssh.sh")
    with running_s3(tmp_path) if kind == "s3" else running_sshd(sshd or Path()) as store:
        environment = {f"FEDIWARDEN_SWEEP__{name.upper()}": str(value) for name, value in store.settings.items()}
        good, bad = accepted_picture(900), rejected_picture(900)
        store.put("a/good.jpg", good)
        store.put("a/bad.jpg", bad)
        store.put("notes.txt", b"no image")
        done = here.run(store.source, "--quarantine", "away", **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert store.paths() == {"a/good.jpg", "notes.txt", "away/a/bad.jpg"}
        assert store.get("away/a/bad.jpg") == bad
        assert not any(secret in done.stdout + done.stderr for secret in _secrets(store))
        assert "Nothing was removed" not in done.stdout and "quarantined" in done.stdout
        assert here.show(store.source, "--quarantine", "away", **environment)["counts"]["skipped"] == 1


def _secrets(store: ObjectStore) -> list[str]:
    return [str(value) for name, value in store.settings.items() if name in ("s3_secret", "sftp_password")]
