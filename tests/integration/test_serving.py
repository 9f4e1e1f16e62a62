"""`fediwarden audit` as a process: pages and told origins on one port; a real Kafka that is there, away, and back."""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from federation_audit.store.engine import Store
from federation_audit.store.errors import StoreError
from federation_audit.store.migrating import check_schema
from federation_audit.store.queries import read_instances
from schemas.broker import BrokerSettings, Producer
from schemas.clock import now_ms
from schemas.messages import Decision
from schemas.topics import VERDICTS
from tests.faults.proxies import Proxy
from tests.kafka import find_free_ports
from tests.processes import Pipeline, environment_of_process, fetch_status, wait_until
from tests.stores import judged, sha, sqlite_url

pytestmark = pytest.mark.kafka

TOKEN = "a-token-of-the-tests"


class Audit:
    """The process, its port, and its folder."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.port = find_free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = pipeline.folder
        self.environment = pipeline.environment | {
            "FEDIWARDEN_AUDIT__PAGES__PORT": str(self.port),
            "FEDIWARDEN_TENANTS__DEFAULT__ORIGINS_TOKEN": TOKEN,
        }
        self.process = pipeline.start("audit", **self.environment)
        self.process.wait_for(lambda: fetch_status(f"{self.url}/healthz") == 200, "listening")

    def tell(self, *origins: dict[str, Any], token: str = TOKEN) -> httpx.Response:
        body = json.dumps({"origins": origins})
        return httpx.post(f"{self.url}/v1/origins", content=body, headers=bearer(token), timeout=60)

    def doctor(self, **environment: str) -> dict[str, list[dict[str, str]]]:
        """What `fediwarden doctor` finds, by subject."""
        run = subprocess.run(
            [sys.executable, "-m", "fediwarden", "doctor", "--json"],
            env=environment_of_process(self.environment | environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        found: dict[str, list[dict[str, str]]] = {}
        for each in json.loads(run.stdout):
            found.setdefault(each["subject"], []).append(each)
        return found


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def origin(image: int) -> dict[str, Any]:
    return {"sha256": sha(image).hex(), "author": {"id": "https://bad.example/u/mallory"}, "place": "comment"}


def documented_command() -> str:
    """The shell commands of docs/lemmy.md that tell an origin."""
    page = (Path(__file__).parents[2] / "docs" / "lemmy.md").read_text()
    (block,) = [each for each in page.split("```sh\n")[1:] if "/v1/origins -d" in each]
    return block.partition("```")[0]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[BrokerSettings], Audit]]:
    pipelines: list[Pipeline] = []

    def begin(kafka: BrokerSettings) -> Audit:
        pipelines.append(Pipeline(kafka, tmp_path))
        return Audit(pipelines[-1])

    yield begin
    for pipeline in pipelines:
        pipeline.__exit__(None, None, None)


def exposed(url: str) -> dict[str, int]:
    try:
        with Store(url) as store:
            check_schema(store)
            with store.reading() as connection:
                return {each.domain: each.now.exposed for each in read_instances(connection)}
    except StoreError:
        return {}


def test_a_told_origin_is_counted_and_doctor_says_how_all_of_it_is(fresh_kafka, start, tmp_path):
    audit = start(fresh_kafka)

    async def judge() -> None:
        async with Producer(fresh_kafka, client_id="test") as producer:
            verdict = judged(1, Decision.REJECT, at=now_ms())
            await producer.publish(VERDICTS, verdict, key=verdict.sha256)

    asyncio.run(judge())
    assert (audit.tell(origin(1), token="another-token-of-the-tests").status_code, audit.tell().status_code) == (
        401,
        422,
    )
    reply = wait_until(lambda: (r := audit.tell(origin(1))).status_code == 202 and r, "connected to Kafka")
    assert reply.json() == {"accepted": 1, "notes": []}
    assert reply.headers["connection"] == "close"
    assert audit.doctor()["audit"][0]["detail"].endswith("nobody records")
    run = subprocess.run(
        ["bash", "-ec", documented_command().replace("14052", str(audit.port))],
        env=environment_of_process(audit.environment),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(run.stdout) == {"accepted": 1, "notes": []}

    with Pipeline(fresh_kafka, tmp_path) as beside:
        beside.start("audit", "record")
        wait_until(lambda: exposed(sqlite_url(tmp_path)) == {"bad.example": 1}, "the origin is counted")
        found = audit.doctor()
    assert [each["health"] for each in found["audit"]] == ["ok", "ok"], found
    assert "a recorder writes" in found["audit"][0]["detail"]
    assert found["audit"][1]["detail"] == "0 messages behind the topics"
    assert found["pages"][0]["detail"] == f"answer at {audit.url}"
    assert found["accounts"][0]["remedy"] == "fediwarden users add NAME --role admin"
    assert found["intake"][0] | {"remedy": ""} == {
        "subject": "intake",
        "health": "ok",
        "detail": "POST /v1/origins is open to default",
        "remedy": "",
    }
    other = audit.doctor(FEDIWARDEN_TENANTS__DEFAULT__ORIGINS_TOKEN="changed-since-the-start")
    assert other["intake"][0]["health"] == "FAIL"
    assert audit.process.stop() == 0, audit.process.log
    said = audit.process.log
    assert TOKEN not in said and "mallory" not in said


def test_without_kafka_the_pages_are_there_and_tellers_are_told_to_come_back_until_it_is_there(fresh_kafka, start):
    own_port = find_free_ports(1)
    away = fresh_kafka.model_copy(update={"bootstrap_servers": f"127.0.0.1:{own_port}"})
    audit = start(away)
    for _ in range(3):
        reply = audit.tell(origin(1))
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "kafka_away")
        assert reply.headers["retry-after"] == "1"
        assert fetch_status(f"{audit.url}/login") == 200
    assert audit.tell(origin(1), token="wrong-token-of-the-tests").status_code == 401

    async def comes_back() -> None:
        proxy = Proxy(own_port, [int(fresh_kafka.bootstrap_servers.rpartition(":")[2])])
        await proxy.start()
        async with asyncio.timeout(60), httpx.AsyncClient() as client:
            while True:
                body = {"origins": [origin(1)]}
                reply = await client.post(f"{audit.url}/v1/origins", json=body, headers=bearer(TOKEN), timeout=60)
                if reply.status_code == 202:
                    return
                await asyncio.sleep(0.2)

    asyncio.run(comes_back())
    assert audit.process.stop() == 0
    assert audit.process.log.count('"origins_not_taken"') == 1


@pytest.mark.long
def test_a_crowd_of_tellers_does_not_take_the_pages_away(fresh_kafka, start):
    audit = start(fresh_kafka)
    wait_until(lambda: audit.tell(origin(1)).status_code == 202, "connected to Kafka")

    async def scenario() -> tuple[list[int], list[int], list[float]]:
        told: list[int] = []
        pages: list[int] = []
        took: list[float] = []
        over = asyncio.Event()
        limits = httpx.Limits(max_connections=500)
        async with httpx.AsyncClient(limits=limits, timeout=60, headers=bearer(TOKEN)) as tellers:

            async def drip() -> Any:
                yield b'{"origins": ['
                await over.wait()
                yield b"]}"

            async def tell(number: int) -> None:
                for round_ in range(4):
                    body = {"origins": [origin(number * 1000 + round_ * 100 + each) for each in range(100)]}
                    told.append((await tellers.post(f"{audit.url}/v1/origins", json=body)).status_code)

            slow = [asyncio.create_task(tellers.post(f"{audit.url}/v1/origins", content=drip())) for _ in range(250)]
            await asyncio.sleep(1)

            async def read() -> None:
                async with httpx.AsyncClient(timeout=60) as client:
                    for _ in range(20):
                        began = time.monotonic()
                        pages.append((await client.get(f"{audit.url}/login")).status_code)
                        took.append(time.monotonic() - began)

            await read()
            over.set()
            held = [
                each.status_code
                for each in await asyncio.gather(*slow, return_exceptions=True)
                if isinstance(each, httpx.Response)
            ]
            # Those who were let in (16 at a time) end by our word, or by the server's 10 s. Whoever is refused while
            # still sending may see that, or only that the connection is gone.
            assert set(held) <= {408, 422, 503}, held
            assert 16 <= held.count(408) + held.count(422) < 50, held
            await asyncio.gather(*(tell(number) for number in range(40)), read())
        return told, pages, took

    told, pages, took = asyncio.run(scenario())
    assert pages == [200] * 40
    assert set(told) <= {202, 503} and told.count(202) >= 16
    print(
        f"told {told.count(202)} of {len(told)}; a page: median {statistics.median(took):.3f}, worst {max(took):.3f} s"
    )
