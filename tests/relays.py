"""A relay in the test's own event loop, before a server that does as the test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.relay.service import Relay
from gateway.relay.settings import RelaySettings
from gateway.settings import TenantSettings
from schemas.broker import BrokerSettings
from schemas.pseudonyms import Pseudonyms

NO_KAFKA = BrokerSettings(bootstrap_servers="127.0.0.1:9")
WITHIN_S = 60.0

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """A server on a free port that leaves each connection to `handler`, and closes it after; its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the relay hung up, or the test is over
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 16)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def relaying(
    upstream_port: int,
    folder: Path,
    broker: BrokerSettings = NO_KAFKA,
    *,
    tenant: dict[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[Relay]:
    """A relay before that port; `more` are RelaySettings, `tenant` TenantSettings."""
    settings = RelaySettings(**{"port": 0, "health_port": 0, "drain_s": 1.0, **more})
    tenants = {"default": TenantSettings(pict_rs=f"http://127.0.0.1:{upstream_port}", **(tenant or {}))}
    relay = Relay(settings, tenants, broker, Pseudonyms.open(folder / "actors.json"))
    relay.start()
    serve = asyncio.create_task(relay.serve())
    try:
        yield relay
    finally:
        relay.stop()
        await asyncio.wait_for(serve, WITHIN_S)


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """A message's head, its blank line included."""
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WITHIN_S)


async def ask(port: int, request: bytes) -> bytes:
    """Everything that comes back for these bytes until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        writer.write(request)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), WITHIN_S)
    finally:
        writer.close()


async def until(true: Callable[[], Any], what: str) -> Any:
    """Wait until `true()` is, and return its value."""
    give_up_at = asyncio.get_running_loop().time() + WITHIN_S
    while not (value := true()):
        assert asyncio.get_running_loop().time() < give_up_at, f"not {what} after {WITHIN_S} s"
        await asyncio.sleep(0.01)
    return value
