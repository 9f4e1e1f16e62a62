"""The complete pipeline for a load generator: embedded Kafka, one gateway, N scanners whose model only sleeps.

    python -m bench.serve --pause-ms 30 --scanners 3 --port 14051

Gateway and scanners are processes of their own, started as `fediwarden up` starts them. When images can be sent, one
line of JSON on standard output says where and which processes serve; SIGTERM or Ctrl-C ends them all. With
--real-models the scanners run the models of the settings instead. Settings come from FEDIWARDEN_... as ever. Only this
process writes to standard error; the children's logs lie in the data directory, which is a temporary one that goes
with us unless --data-dir is given.
"""

import argparse
import asyncio
import http
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx

from fediwarden.children import ChildSpec, Stopped, Supervisor
from fediwarden.kafka.cluster import Cluster
from fediwarden.kafka.jars import prepare_jars
from fediwarden.kafka.preflight import check_port
from fediwarden.logs import configure_logging
from fediwarden.settings import Settings, environment_of, load_settings
from fediwarden.up import ask_patiently, hold_data_dir
from schemas.broker import Received, Tail, apply_topics
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import ScannerAnnounced
from schemas.topics import SCANNERS

PROBE_EVERY_S = 0.05
READY_WITHIN_S = 90.0
STOP_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is started. `pause_ms` None means the real models."""

    scanners: int
    pause_ms: float | None


async def serve(settings: Settings, plan: Plan) -> None:
    """Serve until a signal; the ready line goes to standard output.

    Raises what `fediwarden.up.run_up` raises, and TimeoutError when it is not ready in time.
    """
    with hold_data_dir(settings.data_dir):
        async with Supervisor() as children:
            with children.signals():
                try:
                    async with asyncio.timeout(READY_WITHIN_S):
                        await children.until(_start(settings, plan, children))
                    print(json.dumps(_describe(settings, children)), flush=True)
                    await children.run()
                except Stopped:
                    pass
                await children.stop()


async def _start(settings: Settings, plan: Plan, children: Supervisor) -> None:
    check_port(settings.gateway.host, settings.gateway.port, purpose="the gateway", remedy="--port", patience_s=5.0)
    Keyring.load_or_create(settings.keys_file)
    if settings.kafka.embedded:
        cluster = await asyncio.to_thread(
            lambda: Cluster(
                settings.data_dir / "kafka",
                port=settings.kafka.port,
                classpath=prepare_jars(settings.cache_dir, home=settings.kafka.home),
                heap_mb=settings.kafka.heap_mb,
                min_free_gb=settings.kafka.min_free_gb,
                java_options=settings.kafka.java_options,
            )
        )
        await asyncio.to_thread(cluster.prepare)
        children.start(*cluster.specs())
        while not await asyncio.to_thread(cluster.is_ready):
            await asyncio.sleep(PROBE_EVERY_S)
    broker = settings.kafka.broker_settings()
    await ask_patiently(lambda: apply_topics(broker))

    announced: set[str] = set()
    all_there = asyncio.Event()
    started_at = now_ms()

    def note(received: Received) -> None:
        message = received.message
        if isinstance(message, ScannerAnnounced) and message.announced_at >= started_at and not message.leaving:
            announced.add(message.scanner)
            if len(announced) >= plan.scanners:
                all_there.set()

    scanner = ["-m", "fediwarden", "scanner"]
    if plan.pause_ms is not None:
        scanner = ["-m", "bench.pause", "--pause-ms", f"{plan.pause_ms:g}"]

    async def start_services() -> None:
        async with Tail(broker, [SCANNERS], since_s=5.0, on_record=note, client_id="bench-serve"):
            children.start(*(_child(settings, f"scanner-{i}", scanner) for i in range(1, plan.scanners + 1)))
            children.start(_child(settings, "gateway", ["-m", "fediwarden", "gateway"]))
            await all_there.wait()

    await ask_patiently(start_services)
    async with httpx.AsyncClient(base_url=settings.gateway_url) as client:
        while not await _is_ready(client, plan.scanners):
            await asyncio.sleep(PROBE_EVERY_S)


def _child(settings: Settings, name: str, arguments: list[str]) -> ChildSpec:
    return ChildSpec(
        name=name,
        argv=(sys.executable, *arguments),
        environment=environment_of(settings),
        output=settings.data_dir / f"{name}.log",
        stop_within_s=STOP_WITHIN_S,
    )


async def _is_ready(client: httpx.AsyncClient, scanners: int) -> bool:
    try:
        response = await client.get("/readyz")
    except httpx.TransportError:
        return False
    # The gateway tells the number of scanners that it knows only in words.
    detail = str(response.json()["parts"]["scanners"]["detail"])
    return response.status_code == http.HTTPStatus.OK and detail.split(maxsplit=1)[0] == str(scanners)


def _describe(settings: Settings, children: Supervisor) -> dict[str, object]:
    pids: dict[str, list[int]] = {}
    for name, pid in children.running().items():
        pids.setdefault("kafka" if name.startswith("kafka") else name.partition("-")[0], []).append(pid)
    return {
        "url": f"{settings.gateway_url}/api/v1/scan/IPADDR",
        "bootstrap_servers": settings.kafka.broker_settings().bootstrap_servers,
        "data_dir": str(settings.data_dir),
        "pids": pids,
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m bench.serve"
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--pause-ms", type=float, help="how long the model sleeps for each image")
    model.add_argument("--real-models", action="store_true", help="the models of the settings instead")
    parser.add_argument("--scanners", type=int, default=1)
    parser.add_argument("--port", type=int, default=14051, help="of the gateway")
    parser.add_argument("--kafka-port", type=int, help="default: --port + 100; the next one is used as well")
    parser.add_argument("--data-dir", type=Path, help="keep everything there")
    arguments = parser.parse_args()
    plan = Plan(arguments.scanners, None if arguments.real_models else arguments.pause_ms)
    with tempfile.TemporaryDirectory(prefix="fediwarden-bench-") as temporary:
        data_dir = arguments.data_dir or Path(temporary)
        data_dir.mkdir(parents=True, exist_ok=True)
        settings = load_settings(
            {
                "data_dir": data_dir,
                "gateway": {"port": arguments.port},
                "kafka": {"port": arguments.kafka_port or arguments.port + 100},
            }
        )
        configure_logging(settings.log, service="bench")
        asyncio.run(serve(settings, plan))
    return 0


if __name__ == "__main__":
    sys.exit(main())
