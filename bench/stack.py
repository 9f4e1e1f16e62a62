"""A running `bench.serve`, for the scenarios."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

START_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """What `bench.serve`'s ready line says."""

    url: str
    bootstrap_servers: str
    data_dir: Path
    pids: dict[str, list[int]]

    @property
    def base_url(self) -> str:
        """The gateway without a path."""
        return self.url.partition("/api/")[0]

    def topic_bytes(self) -> dict[str, int]:
        """Bytes in the segments of each topic on the embedded Kafka's disk, as they are now."""
        sizes: dict[str, int] = {}
        for segment in (self.data_dir / "kafka").rglob("fediwarden.*/*.log"):
            topic = segment.parent.name.removeprefix("fediwarden.").rpartition("-")[0]
            sizes[topic] = sizes.get(topic, 0) + segment.stat().st_size
        return sizes


class Stack:
    """`python -m bench.serve` with `arguments`, in an own process; serving inside the context, gone after it."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Served:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.serve",
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "FEDIWARDEN_LOG__LEVEL": "warning"},
        )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_WITHIN_S):
                line = await self._process.stdout.readline()
            if not line:
                raise RuntimeError(f"bench.serve {' '.join(self._arguments)} ended before it was ready")
        except BaseException:
            await self._stop()
            raise
        said = json.loads(line)
        return Served(said["url"], said["bootstrap_servers"], Path(said["data_dir"]), said["pids"])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
