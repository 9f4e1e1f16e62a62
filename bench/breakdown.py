"""Where one image's milliseconds go, one request at a time.

    python -m bench.breakdown --pause-ms 30 --images 100
    python -m bench.breakdown --real-models --images 100

Means over the images, so that they add up. Sources: the client's clock; the gateway's answer (`milliseconds`) to new
and to known bytes (a known answer is reading, hashing and looking up); its metrics (frames, publish); the
verdict's timings (queued, decode, wait, infer). What no clock covers is the rest: sealing, the verdict's way back.
"""

import argparse
import asyncio
import hashlib
import json
import re
import statistics
import sys
import time
from dataclasses import dataclass

import httpx

from bench.pictures import Relabelled, make_pictures
from bench.stack import Served, Stack
from schemas.broker import BrokerSettings, Received, Tail
from schemas.messages import Verdict
from schemas.topics import VERDICTS

CHUNK = 8192
WARM_UP = 20


@dataclass(frozen=True, slots=True)
class Part:
    """One row: `milliseconds` on the way of one image; `counted` is whether they belong to the sum."""

    name: str
    milliseconds: float
    source: str
    counted: bool = True


def parse_step(metrics: str, step: str) -> tuple[float, float]:
    """Sum (seconds) and count of ``fediwarden_gateway_<step>_seconds`` in Prometheus text."""
    values = []
    for suffix in ("sum", "count"):
        found = re.search(rf"^fediwarden_gateway_{step}_seconds_{suffix} (\S+)$", metrics, re.MULTILINE)
        values.append(float(found.group(1)) if found else 0.0)
    return values[0], values[1]


async def _post(client: httpx.AsyncClient, url: str, body: bytes) -> tuple[float, dict[str, object]]:
    async def pieces() -> object:
        for start in range(0, len(body), CHUNK):
            yield body[start : start + CHUNK]

    started = time.perf_counter()
    response = await client.post(url, content=pieces(), headers={"Content-Type": "image/jpeg"})  # type: ignore[arg-type]
    took = (time.perf_counter() - started) * 1000.0
    response.raise_for_status()
    said: dict[str, object] = response.json()
    return took, said


async def break_down(served: Served, pictures: list[bytes]) -> list[Part]:
    """The rows for these pictures, sent one at a time."""
    verdicts: dict[str, Verdict] = {}

    def keep(received: Received) -> None:
        if isinstance(received.message, Verdict):
            verdicts[received.message.scan_id] = received.message

    number = time.time_ns()
    bodies = [Relabelled(picture).numbered(number + turn) for turn, picture in enumerate(pictures)]
    warm = [Relabelled(picture).numbered(number - 1 - turn) for turn, picture in enumerate(pictures[:WARM_UP])]
    broker = BrokerSettings(bootstrap_servers=served.bootstrap_servers)
    async with (
        httpx.AsyncClient(base_url=served.base_url, timeout=10.0) as client,
        Tail(broker, [VERDICTS], since_s=1.0, on_record=keep, client_id="bench-breakdown") as tail,
    ):
        await tail.wait_positioned()
        for body in warm:
            await _post(client, served.url, body)
        before = (await client.get("/metrics")).text
        new = [await _post(client, served.url, body) for body in bodies]
        after = (await client.get("/metrics")).text
        known = [await _post(client, served.url, body) for body in bodies]

    def mean_of_step(step: str) -> float:
        first, last = parse_step(before, step), parse_step(after, step)
        return (last[0] - first[0]) / max(1.0, last[1] - first[1]) * 1000.0

    def mean(values: list[float]) -> float:
        return statistics.fmean(values)

    judged = [said for _, said in new if said["answered_by"] == "verdict"]
    if len(judged) < len(new):
        raise RuntimeError(f"{len(new) - len(judged)} of {len(new)} images were not answered by their verdict")
    timings = [verdicts[str(said["scan_id"])].timings for said in judged]
    started = time.perf_counter()
    for body in bodies:
        hashlib.sha256(body).digest()
    hashing = (time.perf_counter() - started) / len(bodies) * 1000.0

    whole = mean([took for took, _ in new])
    gateway = mean([float(str(said["milliseconds"])) for said in judged])
    reading = mean([float(str(said["milliseconds"])) for _, said in known]) - hashing
    parts = [
        Part("HTTP outside the gateway's clock", whole - gateway, "client - gateway's milliseconds"),
        Part("read the body", reading, "milliseconds of the same bytes when known, less the hash"),
        Part("hash (sha256)", hashing, "hashlib over the same bytes"),
        Part("frames (decode, scale, encode, PDQ; queue and IPC)", mean_of_step("frames"), "gateway metrics"),
        Part("publish to poll", mean([timing.queued for timing in timings]), "verdict.timings.queued"),
        Part("decode", mean([timing.decode for timing in timings]), "verdict.timings.decode"),
        Part("wait for a batch and threads", mean([timing.wait for timing in timings]), "verdict.timings.wait"),
        Part("infer", mean([timing.infer for timing in timings]), "verdict.timings.infer"),
    ]
    rest = whole - sum(part.milliseconds for part in parts)
    parts.append(Part("seal, publish the verdict, its way back", rest, "what is left"))
    parts.append(Part("all", whole, "client"))
    parts.append(
        Part("publish until acknowledged (not waited for)", mean_of_step("publish"), "gateway metrics", counted=False)
    )
    return parts


def to_markdown(parts: list[Part]) -> str:
    """The rows as a table."""
    lines = ["| part | ms | source |", "|---|---:|---|"]
    lines += [f"| {part.name} | {part.milliseconds:.2f} | {part.source} |" for part in parts]
    return "\n".join(lines)


async def _run(arguments: argparse.Namespace) -> list[Part]:
    model = ["--real-models"] if arguments.real_models else ["--pause-ms", f"{arguments.pause_ms:g}"]
    pictures = make_pictures(arguments.images)
    async with Stack(*model, "--scanners", "1", "--port", str(arguments.port)) as served:
        return await break_down(served, pictures)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m bench.breakdown"
    )
    parser.add_argument("--pause-ms", type=float, default=30.0)
    parser.add_argument("--real-models", action="store_true")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--port", type=int, default=18051)
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    arguments = parser.parse_args()
    parts = asyncio.run(_run(arguments))
    if arguments.json:
        print(json.dumps([{"part": part.name, "ms": part.milliseconds, "source": part.source} for part in parts]))
    else:
        print(to_markdown(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
