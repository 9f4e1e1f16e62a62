"""A whole fediwarden as an admin starts it: `fediwarden up` in a process and folders of its own."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from schemas.broker import BrokerSettings, Received, Tail
from schemas.messages import AnswerGiven, Verdict
from schemas.topics import ANSWERS, VERDICTS
from tests.kafka import cache_dir, find_free_ports
from tests.pictrs.pictrs import wait_until

START_S = 600.0
"""On a fresh machine Kafka and the models are fetched first, while other tests do the same."""
STOP_S = 40.0


class Warden:
    """`fediwarden up` with everything it keeps below `folder`; ready inside the context, gone after it.

    `environment` is what its processes, and others that shall belong to it, find in theirs; `settings` adds to it.
    """

    def __init__(
        self, folder: Path, *, policy: Path | None = None, scanners: int = 1, settings: Mapping[str, str] | None = None
    ) -> None:
        self.port = find_free_ports(1)
        kafka_port = find_free_ports(2)
        self.validation = f"http://127.0.0.1:{self.port}/api/v1/scan/IPADDR"
        self.broker = BrokerSettings(bootstrap_servers=f"127.0.0.1:{kafka_port}")
        self._log = folder / "up.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._scanners = scanners
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FEDIWARDEN_")},
            "FEDIWARDEN_DATA_DIR": str(folder / "data"),
            "FEDIWARDEN_CACHE_DIR": str(cache_dir()),
            "FEDIWARDEN_GATEWAY__PORT": str(self.port),
            "FEDIWARDEN_GATEWAY__DEADLINE_MS": "6000",  # a busy build machine shall not turn a verdict into a deadline
            "FEDIWARDEN_KAFKA__PORT": str(kafka_port),
            "FEDIWARDEN_UP__AUDIT": "false",  # two processes less beside those that are tested here
            **(settings or {}),
        }
        if policy is not None:
            self.environment["FEDIWARDEN_SCANNER__POLICY"] = str(policy)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until the gateway is ready and, if it is to have scanners, has heard of one."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fediwarden", "up", "--scanners", str(self._scanners)],
                env=self.environment | {"FEDIWARDEN_UP__AUDIT": "false"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._is_ready, START_S, f"fediwarden to be ready; its log is {self._log}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop as Ctrl-C does; nothing happens when it has been stopped."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"fediwarden up ended: {self._log.read_text()[-3000:]}")
        try:
            response = httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5.0)
        except httpx.TransportError:
            return False
        return response.is_success and (not self._scanners or bool(response.json()["parts"]["scanners"]["ok"]))

    def post(self, data: bytes, media_type: str) -> httpx.Response:
        """Post a file to the gateway as pict-rs does: chunked, with nothing but its media type."""
        pieces = (data[start : start + 8192] for start in range(0, len(data), 8192))
        return httpx.post(self.validation, content=pieces, headers={"Content-Type": media_type}, timeout=10.0)

    def records(self) -> tuple[list[Verdict], list[AnswerGiven]]:
        """Every verdict and every answer in the log so far."""
        return asyncio.run(self._read())

    async def _read(self) -> tuple[list[Verdict], list[AnswerGiven]]:
        verdicts: list[Verdict] = []
        answers: list[AnswerGiven] = []

        def keep(received: Received) -> None:
            if isinstance(received.message, Verdict):
                verdicts.append(received.message)
            elif isinstance(received.message, AnswerGiven):
                answers.append(received.message)

        async with Tail(
            self.broker, [VERDICTS, ANSWERS], since_s=3600, on_record=keep, client_id="tests-pictrs"
        ) as tail:
            await tail.wait_positioned()
        return verdicts, answers
