"""The whole way of an image as an admin sees it: one trace through all services, log lines, metrics. Real processes."""

import hashlib
import json
import re

import httpx
import pytest

from schemas.broker import BrokerSettings
from schemas.topics import ENFORCEMENTS
from tests.kafka import find_free_ports
from tests.otlp import OtlpReceiver, SentSpan, receiving
from tests.pict_rs import API_KEY, FORMATS, running_pict_rs
from tests.processes import Pipeline, Process, wait_until
from tests.stand_ins import accepted_picture, rejected_picture
from tests.topics import read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.long, pytest.mark.timeout(240)]

TENANT_KEY = "tenant-key-that-nobody-may-see"
ADMIN_TOKEN = "admin-token-that-nobody-may-see"
SERVICES = {"fediwarden-gateway", "fediwarden-scanner", "fediwarden-enforcer", "fediwarden-recorder"}


def spans_of(receiver: OtlpReceiver, scan_id: str) -> dict[tuple[str, str], SentSpan]:
    return {(each.service, each.name): each for each in receiver.spans if each.trace == scan_id}


def lines_of(process: Process) -> list[dict[str, object]]:
    return [json.loads(line) for line in process.log.splitlines() if line.startswith("{")]


def test_one_image_is_one_trace_and_its_lines_bear_its_id_and_no_secret_gets_out(
    fresh_kafka: BrokerSettings, tmp_path
) -> None:
    first_port = find_free_ports(3)
    ports = {name: first_port + number for number, name in enumerate(("recorder", "enforcer", "scanner"))}
    with receiving() as receiver, running_pict_rs(tmp_path / "pict-rs") as pict_rs:
        environment = {
            "FEDIWARDEN_TRACING__ENDPOINT": receiver.endpoint,
            "FEDIWARDEN_LOG__LEVEL": "debug",
            "FEDIWARDEN_GATEWAY__DEADLINE_MS": "60000",
            "FEDIWARDEN_GATEWAY__ADMIN_TOKEN": ADMIN_TOKEN,
            "FEDIWARDEN_TENANTS__DEFAULT__KEY": TENANT_KEY,
            "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS": pict_rs.url,
            "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS_API_KEY": API_KEY,
            "FEDIWARDEN_ENFORCER__CHECKS_S": "[0.2]",
            "FEDIWARDEN_ERASURE__EVERY_S": "1",
        }
        with Pipeline(fresh_kafka, tmp_path, **environment) as pipeline:
            gateway, url = pipeline.start_gateway()
            scanner = pipeline.start_scanner(FEDIWARDEN_METRICS__PORT=str(ports["scanner"]))
            enforcer = pipeline.start("enforcer", FEDIWARDEN_METRICS__PORT=str(ports["enforcer"]))
            recorder = pipeline.start("audit", "record", FEDIWARDEN_METRICS__PORT=str(ports["recorder"]))
            bad, good, torn = rejected_picture(1), accepted_picture(1), rejected_picture(2)[:200]
            pict_rs.files.keep(bad, FORMATS["image/jpeg"])
            said = [
                httpx.post(f"{url}/api/v1/scan/{TENANT_KEY}", content=each, timeout=90) for each in (bad, good, torn)
            ]
            assert [each.status_code for each in said] == [406, 200, 406]
            rejected = said[0].json()["scan_id"]
            wait_until(lambda: len(read_topic(fresh_kafka, ENFORCEMENTS)) >= 2, "the file removed")

            def scrape(name: str) -> str:
                try:
                    return httpx.get(f"http://127.0.0.1:{ports[name]}/metrics").text
                except httpx.TransportError:
                    return ""

            judged = r'verdicts_total\{decision="reject",models="[^"]+",policy="\w{1,12}",stage="live"\} 1\.0'
            assert re.search(judged, scrape("scanner"))
            assert 'fediwarden_enforcer_looks_total{outcome="removed"} 1.0' in scrape("enforcer")
            idle = 'fediwarden_lane_oldest_seconds{group="fediwarden-scanner",topic="images"} 0.0'
            wait_until(lambda: idle in scrape("enforcer"), "a pass of the janitor")
            recorded = 'fediwarden_recorder_records_total{topic="verdicts"} 2.0'
            wait_until(lambda: recorded in scrape("recorder"), "the verdicts recorded")
            of_gateway = httpx.get(f"{url}/metrics").text
            assert 'fediwarden_gateway_tenant_answers_total{accepted="false",tenant="default"} 2.0' in of_gateway
            assert "fediwarden_kafka_up 1.0" in of_gateway
            processes = [gateway, scanner, enforcer, recorder]
            assert [each.stop() for each in processes] == [0, 0, 0, 0]  # what they have not sent yet, they send now

        spans = spans_of(receiver, rejected)
        assert {service for service, _ in spans} == SERVICES
        by_id = {each.span: each for each in receiver.spans}
        judge, hand_over = spans["fediwarden-scanner", "judge"], spans["fediwarden-gateway", "hand over"]
        assert by_id[judge.parent] is hand_over
        assert by_id[hand_over.parent] is spans["fediwarden-gateway", "scan"]
        assert by_id[spans["fediwarden-gateway", "verdict"].parent] is judge
        assert by_id[spans["fediwarden-enforcer", "enforce"].parent] is judge
        assert spans["fediwarden-gateway", "scan"].parent == ""
        assert {each.trace for each in receiver.spans} == {each.json()["scan_id"] for each in said}

        hashes = {hashlib.sha256(each).hexdigest() for each in (bad, good, torn)}
        private = [TENANT_KEY, ADMIN_TOKEN, API_KEY, pict_rs.url, "http://", "https://", *hashes]
        told = "".join(each.text for each in receiver.spans)
        assert [each for each in private if each in told] == []

        everything = "".join(each.log for each in processes)
        keys = json.loads((tmp_path / "keys.json").read_text())
        assert [each for each in (TENANT_KEY, ADMIN_TOKEN, API_KEY, *secrets_in(keys)) if each in everything] == []
        lines = [line for each in processes for line in lines_of(each)]
        about_images = [line for line in lines if hashes & set(map(str, line.values()))]
        assert {line["service"] for line in about_images} >= {"gateway", "scanner", "enforcer"}
        assert [line for line in about_images if len(str(line.get("scan_id", ""))) != 32] == []


def secrets_in(keys: object) -> list[str]:
    """Every long text in the key file, which has nothing long but keys."""
    if isinstance(keys, dict):
        return [found for each in keys.values() for found in secrets_in(each)]
    if isinstance(keys, list):
        return [found for each in keys for found in secrets_in(each)]
    return [keys] if isinstance(keys, str) and len(keys) >= 40 else []
