"""`fediwarden up` as a person runs it: a process of its own, Ctrl-C, a second start, and what goes wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from federation_audit.accounts.roles import Role
from federation_audit.accounts.users import Users
from federation_audit.store.migrating import open_store
from tests.kafka import cache_dir, find_free_ports, java_options
from tests.pages import TEST, WORDS, cheap_passwords
from tests.pictures import photo
from tests.processes import fetch_status, wait_until

pytestmark = pytest.mark.kafka

START_WITHIN_S = 120.0
WITHOUT_AUDIT = {"FEDIWARDEN_UP__AUDIT": "false"}
"""Two processes less, for a test that is not about them."""


class Up:
    """One running `fediwarden up`, with its output in a file."""

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int,
        kafka_port: int,
        scanners: int = 1,
        pages_port: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.port = port
        self.pages = f"http://127.0.0.1:{pages_port}"
        self.output = data_dir.with_name(f"{data_dir.name}-{port}-{time.monotonic_ns()}.log")
        flags = [f"--data-dir={data_dir}", f"--port={port}", f"--kafka-port={kafka_port}", f"--scanners={scanners}"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FEDIWARDEN_")}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fediwarden", "up", *flags],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **inherited,
                    "FEDIWARDEN_CACHE_DIR": str(cache_dir()),
                    "FEDIWARDEN_KAFKA__JAVA_OPTIONS": json.dumps(java_options()),
                    "FEDIWARDEN_AUDIT__PAGES__PORT": str(pages_port),
                    **(environment or {}),
                },
            )

    def text(self) -> str:
        return self.output.read_text()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines() if line.startswith("{") and line.endswith("}")]

    def await_text(self, wanted: str) -> None:
        give_up_at = time.monotonic() + START_WITHIN_S
        while wanted not in self.text():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text()}"
            assert time.monotonic() < give_up_at, f"no {wanted!r} in:\n{self.text()}"
            time.sleep(0.05)

    def await_ready(self) -> "Up":
        self.await_text("Ctrl-C stops everything.")
        return self

    def await_end(self) -> int:
        return self.process.wait(START_WITHIN_S)

    def children(self) -> dict[str, psutil.Process]:
        """The direct children by what they are: kafka, enforcer, gateway, audit, record, scanner (last of several)."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            line = child.cmdline()
            if not line:  # just ended, or just begun
                continue
            found["kafka" if "kafka.Kafka" in line else line[-1]] = child
        return found

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def scan(self, picture: bytes) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v1/scan/IPADDR", data=picture, headers={"Content-Type": "image/jpeg"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def stopped(self) -> list[str]:
        """The children in the order in which they were stopped."""
        return [event["child"] for event in self.events() if event["event"] == "child_stopped"]

    def interrupt(self) -> int:
        """Ctrl-C, and its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.await_end()


Start = Callable[..., Up]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as cleanup:

        def begin(data_dir: Path | None = None, **options: Any) -> Up:
            options.setdefault("port", find_free_ports(2))  # the pages have the next one
            options.setdefault("kafka_port", find_free_ports(2))
            options.setdefault("pages_port", find_free_ports(1))
            up = Up(data_dir or tmp_path / "data", **options)
            cleanup.callback(up.process.wait)
            cleanup.callback(up.process.kill)
            return up

        yield begin


def all_gone(family: list[psutil.Process], within_s: float = 60.0) -> bool:
    _, alive = psutil.wait_procs(family, timeout=within_s)
    return not alive


@pytest.mark.timeout(400)
def test_ctrl_c_leaves_nothing_running_and_a_second_start_has_kept_its_data(start, tmp_path):
    first = start().await_ready()
    assert first.scan(photo(seed=1))["answered_by"] == "verdict"
    assert f"http://127.0.0.1:{first.port}/api/v1/scan/IPADDR" in first.text()
    pages = re.findall(rf"http://127\.0\.0\.1:{first.port}/[a-z.]+(?=[,)])", first.text())
    assert len(pages) == 2
    for page in pages:
        assert urllib.request.urlopen(page, timeout=10).status == 200
    assert f"audit     {first.pages}\n            make the first account: fediwarden users add" in first.text()
    first.await_text("pages listening")
    assert urllib.request.urlopen(f"{first.pages}/login", timeout=30).status == 200
    first.await_text("recorder_ready")
    family = first.family()
    assert {"kafka", "record", "enforcer", "gateway", "scanner", "audit"} == first.children().keys()
    niceness = {name: child.nice() for name, child in first.children().items()}
    assert niceness["record"] == niceness["audit"] > niceness["gateway"] == niceness["scanner"]
    assert (tmp_path / "data" / "keys.json").stat().st_mode & 0o777 == 0o600

    assert first.interrupt() == 0
    assert all_gone(family)
    assert first.stopped() == ["audit", "gateway", "scanner", "enforcer", "recorder", "kafka"]

    with open_store(f"sqlite:///{tmp_path / 'data' / 'audit.sqlite'}") as store:
        Users(store, cheap_passwords()).add("ada", Role.ADMIN, WORDS, by=TEST, must_change=False)
    relay_port = find_free_ports(2)
    of_lemmy = {
        "FEDIWARDEN_UP__RELAY": "true",
        "FEDIWARDEN_RELAY__PORT": str(relay_port),
        "FEDIWARDEN_RELAY__HEALTH_PORT": str(relay_port + 1),
        "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS": "http://127.0.0.1:9",
        "FEDIWARDEN_TENANTS__DEFAULT__LEMMY_DATABASE": "postgresql://nobody@127.0.0.1:9/lemmy",
    }
    second = start(port=first.port, environment=of_lemmy).await_ready()
    assert second.scan(photo(seed=1))["answered_by"] == "known"
    assert "make the first account" not in second.text()
    for wanted in ("relay listening", "lemmy_ready", "pages listening", "recorder_ready"):
        second.await_text(wanted)
    assert urllib.request.urlopen(f"http://127.0.0.1:{relay_port + 1}/healthz", timeout=30).status == 200
    assert second.interrupt() == 0
    assert second.stopped() == ["relay", "audit", "gateway", "lemmy", "scanner", "enforcer", "recorder", "kafka"]


def test_what_dies_is_restarted_and_the_log_says_so_and_killing_up_itself_leaves_nothing_running(start):
    up = start(environment=WITHOUT_AUDIT).await_ready()
    for name in ("scanner", "gateway", "kafka"):
        up.children()[name].kill()
        up.await_text(f'"child": "{name}"')
        deaths = lambda: [e for e in up.events() if e["event"] == "child_died" and e["child"] == name]  # noqa: B023, E731
        give_up_at = time.monotonic() + START_WITHIN_S
        while not deaths() or name not in up.children():
            assert time.monotonic() < give_up_at, up.text()
            time.sleep(0.05)
        assert deaths()[0]["how"] == "ended by SIGKILL"
    seed = 100
    give_up_at = time.monotonic() + START_WITHIN_S
    while True:  # each try is another picture: this one's verdict comes from the scanner and Kafka of now
        seed += 1
        try:
            if up.scan(photo(seed=seed))["answered_by"] == "verdict":
                break
        except OSError:
            time.sleep(0.2)
        assert time.monotonic() < give_up_at, up.text()

    family = up.family()
    assert {"kafka", "enforcer", "gateway", "scanner"} <= up.children().keys()
    up.process.kill()
    up.process.wait()
    assert all_gone(family)


def test_two_run_side_by_side_but_not_on_one_directory_nor_one_port(start, tmp_path):
    first = start(tmp_path / "a").await_ready()

    same_directory = start(tmp_path / "a")
    assert same_directory.await_end() == 1
    assert str(first.process.pid) in same_directory.text()
    assert "--data-dir" in same_directory.text()

    same_port = start(tmp_path / "c", port=first.port)
    assert same_port.await_end() == 1
    assert str(first.port) in same_port.text()
    assert "FEDIWARDEN_GATEWAY__PORT" in same_port.text()
    wait_until(lambda: fetch_status(f"{first.pages}/healthz") == 200, "the pages are there", 120)
    same_pages = start(tmp_path / "c", pages_port=int(first.pages.rpartition(":")[2]))
    assert same_pages.await_end() == 1
    assert "FEDIWARDEN_AUDIT__PAGES__PORT" in same_pages.text()
    assert "Traceback" not in same_port.text() + same_directory.text() + same_pages.text()

    second = start(tmp_path / "b", scanners=2, environment=WITHOUT_AUDIT).await_ready()
    for up in (first, second):
        assert up.scan(photo(seed=5))["answered_by"] == "verdict"
    assert [second.interrupt(), first.interrupt()] == [0, 0]


def test_a_service_that_is_configured_wrongly_ends_up_with_its_reason(start, tmp_path):
    (tmp_path / "policy.toml").write_text("this is no policy")
    up = start(environment=WITHOUT_AUDIT | {"FEDIWARDEN_SCANNER__POLICY": str(tmp_path / "policy.toml")})
    assert up.await_end() == 78
    assert "policy.toml" in up.text()
    assert "scanner cannot run as it is configured" in up.text()
    assert "Traceback" not in up.text()


def test_ctrl_c_while_everything_is_still_starting_leaves_nothing_running(start):
    up = start()
    up.await_text("child_started")
    family = up.family()
    assert up.interrupt() == 0
    assert all_gone(family)
