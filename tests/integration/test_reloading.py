"""Changing a policy under a running scanner: real processes on a real Kafka."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from scanner.models.loading import every_label
from scanner.policy import load_policy
from schemas.broker import BrokerSettings
from schemas.messages import EVERY_TENANT
from tests.processes import Pipeline, Process
from tests.scanners import Observed, observing
from tests.stand_ins import rejected_picture

pytestmark = pytest.mark.kafka

SHIPPED = Path("scanner/policies")
PATIENCE_S = 60.0


def shipped(name: str) -> str:
    return (SHIPPED / f"{name}.toml").read_text()


def policy_id(name: str) -> str:
    return load_policy(Path(name), every_label()).id


def put(file: Path, text: str) -> None:
    """A new file in the old one's place, as editors and configuration management write it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def logged(process: Process, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in process.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


async def until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.05)


def test_a_changed_policy_file_is_taken_up_a_broken_one_is_refused_and_every_verdict_names_its_policy(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(shipped("default-cpu"))
    own = tmp_path / "own.toml"
    own.write_text(shipped("strict"))

    async def announced(observed: Observed, everyone: str, little: str) -> None:
        wanted = {EVERY_TENANT: policy_id(everyone), "little": policy_id(little)}
        await observed.until(lambda: observed.announcements and observed.announcements[-1].policies == wanted)

    async def scan(client: httpx.AsyncClient, tenant: str, picture: bytes) -> Any:
        key = {"authorization": f"Bearer key-of-{tenant}-0123456789"}
        return (await client.post("/v1/scans", content=picture, headers=key)).json()

    async def scenario(pipeline: Pipeline) -> None:
        _, url = pipeline.start_gateway()
        scanner = pipeline.start_scanner()
        async with AsyncExitStack() as stack:
            observed, _ = await stack.enter_async_context(observing(fresh_kafka))
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60, trust_env=False))
            await announced(observed, "default-cpu", "strict")
            first = await scan(client, "main", rejected_picture())
            assert first["decision"] == "reject"

            put(file, shipped("observe"))
            await announced(observed, "observe", "strict")
            second = await scan(client, "main", rejected_picture())
            give_up_at = time.monotonic() + PATIENCE_S
            while second["answered_by"] == "known" and time.monotonic() < give_up_at:
                await asyncio.sleep(0.05)  # the gateway hears of the new policy when we do, not before
                second = await scan(client, "main", rejected_picture())
            assert (second["decision"], second["answered_by"]) == ("accept", "verdict")
            own_answer = await scan(client, "little", rejected_picture(1))
            assert own_answer["decision"] == "reject"

            put(file, shipped("observe").replace("0.8", "8.0", 1))
            await until(lambda: bool(logged(scanner, "policy_refused")))
            refused = logged(scanner, "policy_refused")[0]
            assert f"{file}, line 16, column 55: rule 'would-reject-sexual': at_least of" in refused["error"]
            assert refused["in_force"][EVERY_TENANT] == policy_id("observe")
            third = await scan(client, "main", rejected_picture(2))
            assert third["decision"] == "accept"

            own.unlink()
            await until(lambda: len(logged(scanner, "policy_refused")) == 2)
            put(file, shipped("strict"))
            await until(lambda: len(logged(scanner, "policy_refused")) == 3)  # all or none, and own.toml is not there
            assert str(own) in logged(scanner, "policy_refused")[2]["error"]
            put(own, shipped("observe"))
            await announced(observed, "strict", "observe")
            fourth = await scan(client, "main", rejected_picture(3))
            assert fourth["decision"] == "reject"

            await observed.until(lambda: len(observed.verdicts) == 5)
            by_scan = {scan_id: verdict.policy for scan_id, verdict in observed.verdicts.items()}
            assert by_scan == {
                first["scan_id"]: policy_id("default-cpu"),
                second["scan_id"]: policy_id("observe"),
                own_answer["scan_id"]: policy_id("strict"),
                third["scan_id"]: policy_id("observe"),
                fourth["scan_id"]: policy_id("strict"),
            }
            assert len(logged(scanner, "scanner_ready")) == 1

    tenants = {name: {"key": f"key-of-{name}-0123456789"} for name in ("main", "little")}
    environment = {
        "FEDIWARDEN_SCANNER__POLICY": str(file),
        "FEDIWARDEN_SCANNER__POLICIES": json.dumps({"little": str(own)}),
        "FEDIWARDEN_TENANTS": json.dumps(tenants),
        "FEDIWARDEN_GATEWAY__DEADLINE_MS": "30000",
        "FEDIWARDEN_SCANNER__ANNOUNCE_S": "5",
    }
    with Pipeline(fresh_kafka, tmp_path, **environment) as pipeline:
        asyncio.run(scenario(pipeline))
