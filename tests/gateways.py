"""A real gateway for tests: in a thread of its own, on a free port, with real frame workers."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvloop

from gateway.frames.settings import FrameSettings
from gateway.service import Gateway
from gateway.settings import GatewaySettings, TenantSettings
from schemas.broker import BrokerSettings
from schemas.keyring import Keyring

NO_KAFKA = BrokerSettings(bootstrap_servers="127.0.0.1:9")
"""Nobody listens there: the gateway serves nonetheless and answers by the deadline."""


@dataclass
class RunningGateway:
    """A gateway that serves until the context ends."""

    gateway: Gateway
    keyring: Keyring
    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    errors: list[BaseException] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    def ready(self) -> "RunningGateway":
        """Wait until readyz says so. Raises what ended the gateway before."""

        def holds() -> bool:
            if not self.thread.is_alive() and self.errors:
                raise self.errors[0]
            return httpx.get(f"{self.url}/readyz").status_code == 200

        wait_for(holds)
        return self

    def stop(self) -> None:
        """Stop as SIGTERM does and wait for the end."""
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.gateway.stop)
        self.thread.join(30)
        assert not self.thread.is_alive(), "the gateway did not stop"


def settings(**more: Any) -> GatewaySettings:
    """Settings of a small gateway."""
    return GatewaySettings(**{"port": 0, "deadline_ms": 400, "drain_s": 5, "frames": FrameSettings(workers=2), **more})


@contextmanager
def running_gateway(
    broker: BrokerSettings = NO_KAFKA,
    *,
    tenants: Mapping[str, TenantSettings] | None = None,
    keyring: Keyring | None = None,
    **more: Any,
) -> Iterator[RunningGateway]:
    """A gateway that listens already; `more` are GatewaySettings. Its spool goes with it unless `more` names one."""
    with (
        tempfile.TemporaryDirectory(prefix="fediwarden-spool-") as spool_dir,
        _running_gateway(broker, tenants, keyring, {"spool_dir": Path(spool_dir), **more}) as running,
    ):
        yield running


@contextmanager
def _running_gateway(
    broker: BrokerSettings,
    tenants: Mapping[str, TenantSettings] | None,
    keyring: Keyring | None,
    more: Mapping[str, Any],
) -> Iterator[RunningGateway]:
    keyring = keyring or Keyring.generate()
    listening = threading.Event()
    made: list[RunningGateway] = []
    failed: list[BaseException] = []

    async def serve() -> None:
        gateway = Gateway(settings(**more), tenants or {"default": TenantSettings()}, broker, keyring)
        await gateway.start()
        made.append(RunningGateway(gateway, keyring, thread, asyncio.get_running_loop()))
        listening.set()
        await gateway.serve()

    def run() -> None:
        try:
            uvloop.run(serve())
        except BaseException as error:  # noqa: BLE001  # handed to the test's thread
            (made[0].errors if made else failed).append(error)
            listening.set()

    thread = threading.Thread(target=run, name="gateway", daemon=True)
    thread.start()
    listening.wait(60)
    if failed:
        raise failed[0]
    try:
        yield made[0]
    finally:
        made[0].stop()


def wait_for(condition: Callable[[], bool], within_s: float = 30) -> None:
    """Return once `condition` holds; fail when it does not in time."""
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
