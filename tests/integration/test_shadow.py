"""A shadow beside a live scanner: real processes, models and Kafka; it says what it would do, and does nothing."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from schemas.broker import BrokerSettings
from schemas.messages import Decision, Verdict
from schemas.topics import IMAGES, IMAGES_ARCHIVE, IMAGES_BACKLOG, IMAGES_DEAD, SCANNERS, VERDICTS, VERDICTS_SHADOW
from tests.processes import Pipeline, environment_of_process, wait_until
from tests.stand_ins import accepted_picture, rejected_picture
from tests.topics import read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

PRUDE = """
[policy]
name = "prude"

[[rule]]
name = "anything"
says = "It is a picture."
decision = "reject"
when = { score = "open-nsfw/nsfw", at_least = 0.00001 }
"""


def post(url: str, data: bytes) -> dict[str, Any]:
    return httpx.post(f"{url}/api/v1/scan/IPADDR", content=data, timeout=90).json()


def verdicts(kafka: BrokerSettings, topic=VERDICTS) -> dict[str, Verdict]:
    return {each.message.scan_id: each.message for each in read_topic(kafka, topic)}


def report(pipeline: Pipeline, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "fediwarden", "shadow", "report", *arguments],
        env=environment_of_process(pipeline.environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def scanners_known(url: str) -> str:
    return httpx.get(f"{url}/readyz").json()["parts"]["scanners"]["detail"]


async def poison(kafka: BrokerSettings) -> None:
    raw = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await raw.start()
    await raw.send_and_wait(IMAGES.full_name(kafka.topic_prefix), b"\xff garbage", key=b"garbage")
    await raw.stop()


def test_a_shadow_says_what_it_would_have_decided_and_nobody_notices_it(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    (tmp_path / "prude.toml").write_text(PRUDE)
    shadow_of = {
        "FEDIWARDEN_SCANNER__SHADOW": "true",
        "FEDIWARDEN_SCANNER__POLICY": str(tmp_path / "prude.toml"),
    }
    good, bad = [accepted_picture(seed) for seed in (1, 2)], [rejected_picture(seed) for seed in (1, 2)]
    with Pipeline(fresh_kafka, tmp_path, FEDIWARDEN_GATEWAY__DEADLINE_MS="60000") as pipeline:
        shadow = pipeline.start_scanner(**shadow_of)
        _, url = pipeline.start_gateway()
        wait_until(lambda: read_topic(fresh_kafka, SCANNERS), "announced")
        assert scanners_known(url) == "0 announced"
        assert "No shadow has judged anything" in report(pipeline)
        pipeline.start_scanner()
        wait_until(lambda: scanners_known(url) == "1 announced", "the live one known")

        answers = [post(url, data) for data in (*good, *bad)]
        assert [(each["answered_by"], each["decision"]) for each in answers] == [
            ("verdict", "accept"),
            ("verdict", "accept"),
            ("verdict", "reject"),
            ("verdict", "reject"),
        ]
        asyncio.run(poison(fresh_kafka))
        wait_until(lambda: len(verdicts(fresh_kafka, VERDICTS_SHADOW)) == 4, "all judged by the shadow")
        wait_until(lambda: read_topic(fresh_kafka, IMAGES_DEAD), "the poison declared dead")
        wait_until(lambda: "image_unjudgeable" in shadow.log, "the poison seen by the shadow")
        assert post(url, good[0])["answered_by"] == "known"

        live, would = verdicts(fresh_kafka), verdicts(fresh_kafka, VERDICTS_SHADOW)
        assert set(live) == set(would) == {each["scan_id"] for each in answers}
        assert {each.decision for each in would.values()} == {Decision.REJECT}
        assert {each.scanner for each in live.values()}.isdisjoint({each.scanner for each in would.values()})
        assert len(read_topic(fresh_kafka, VERDICTS)) == 4
        assert len(read_topic(fresh_kafka, IMAGES_ARCHIVE)) == 2
        assert len(read_topic(fresh_kafka, IMAGES_DEAD)) == 1
        assert read_topic(fresh_kafka, IMAGES_BACKLOG) == []

        assert shadow.stop() == 0
        late = post(url, accepted_picture(3))
        compared = json.loads(report(pipeline, "--json"))
        assert (compared["compared"], compared["changed"], compared["without_live"]) == (4, 2, 0)
        assert {(each["live"], each["shadow"]): each["images"] for each in compared["decisions"]} == {
            ("accept", "reject"): 2,
            ("reject", "reject"): 2,
        }
        flipped = next(each for each in compared["decisions"] if each["live"] == "accept")
        assert set(flipped["examples"]) == {each["scan_id"] for each in answers[:2]}
        assert late["scan_id"] not in flipped["examples"]
        assert compared["rules"]["anything"] == {"live_only": 0, "shadow_only": 4, "both": 0}
        table = report(pipeline)
        assert "4 images compared" in table
        assert f"accept -> reject, for example: {' '.join(flipped['examples'])}" in table
