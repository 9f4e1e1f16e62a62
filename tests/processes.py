"""The real processes of fediwarden, started by tests against the tests' Kafka."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from scanner.models.registry import fetch, load_registry
from schemas.broker import BrokerSettings
from schemas.keyring import Keyring
from tests.kafka import cache_dir, find_free_ports

START_WITHIN_S = 60.0
STOP_WITHIN_S = 60.0


def environment_of_process(environment: Mapping[str, str]) -> dict[str, str]:
    """Ours without its settings, the tests' own settings, and `environment`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FEDIWARDEN_")}
    return inherited | {"FEDIWARDEN_CACHE_DIR": str(cache_dir()), "FEDIWARDEN_LOG__FORMAT": "json"} | environment


class Process:
    """One `python -m fediwarden ...`, with its log in a file. End it with `stop` (SIGTERM) or `kill`.

    `module` takes the place of fediwarden.
    """

    def __init__(
        self, command: list[str], *, environment: Mapping[str, str], log_file: Path, module: str = "fediwarden"
    ) -> None:
        self.log_file = log_file
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *command],
                env=environment_of_process(environment),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_for(self, ready: Callable[[], bool], what: str) -> None:
        """Block until `ready`; fails with the log when the process ends first or takes too long."""
        give_up_at = time.monotonic() + START_WITHIN_S
        while not ready():
            assert self._process.poll() is None, f"ended with {self._process.returncode} before {what}:\n{self.log}"
            assert time.monotonic() < give_up_at, f"not {what} after {START_WITHIN_S} s:\n{self.log}"
            time.sleep(0.05)

    def wait(self, timeout_s: float = STOP_WITHIN_S) -> int:
        return self._process.wait(timeout_s)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self._process.poll() is None:
            self._process.terminate()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()


class Pipeline:
    """Gateways and scanners on one Kafka, under one prefix, with one key file. A context manager."""

    def __init__(self, kafka: BrokerSettings, folder: Path, **environment: str) -> None:
        self.kafka = kafka
        self.folder = folder
        self.keyring = Keyring.load_or_create(folder / "keys.json")
        self.environment = {
            "FEDIWARDEN_DATA_DIR": str(folder),
            "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "FEDIWARDEN_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
            "FEDIWARDEN_GATEWAY__FRAMES__WORKERS": "2",
            "FEDIWARDEN_SCANNER__ANNOUNCE_S": "1",
        } | environment
        self.processes: list[Process] = []

    def start(self, *command: str, **environment: str) -> Process:
        """Start one process, without waiting for it."""
        log_file = self.folder / f"{len(self.processes)}-{command[0]}.log"
        process = Process(list(command), environment=self.environment | environment, log_file=log_file)
        self.processes.append(process)
        return process

    def start_gateway(self, **environment: str) -> tuple[Process, str]:
        """A gateway that is ready, and its URL."""
        port = find_free_ports(1)
        process = self.start("gateway", FEDIWARDEN_GATEWAY__PORT=str(port), **environment)
        url = f"http://127.0.0.1:{port}"
        process.wait_for(lambda: fetch_status(f"{url}/readyz") == 200, "ready")
        return process, url

    def start_scanner(self, **environment: str) -> Process:
        """A scanner that has joined its group; its models are fetched when they are not in the cache."""
        registry = load_registry()
        fetch(registry, ("safety-s", "open-nsfw"), cache_dir() / "models")
        process = self.start("scanner", **environment)
        process.wait_for(lambda: "scanner_ready" in process.log, "ready")
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in reversed(self.processes):
            process.kill()


def fetch_status(url: str) -> int:
    """The status of a GET, 0 when nobody answers."""
    try:
        return httpx.get(url, timeout=2.0).status_code
    except httpx.TransportError:
        return 0


def wait_until(true: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """Block until `true()` is, and return its value."""
    give_up_at = time.monotonic() + timeout_s
    while not (value := true()):
        assert time.monotonic() < give_up_at, f"not {what} after {timeout_s} s"
        time.sleep(0.05)
    return value
