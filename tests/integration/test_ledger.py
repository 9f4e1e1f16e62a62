"""`fediwarden ledger` as a person runs it, on what stands in a real Kafka."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from schemas.broker import BrokerSettings, Producer
from schemas.clock import now_ms
from schemas.messages import AnsweredBy, Decision, EnforcementOutcome, Message
from schemas.topics import ANSWERS, ENFORCEMENTS, IMAGES_DEAD, VERDICTS
from tests.unit.fediwarden.test_ledger import TOPICS, answered, died, judged, looked

pytestmark = pytest.mark.kafka

HOUR = 3_600_000


def publish(kafka: BrokerSettings, *messages: Message) -> None:
    async def scenario() -> None:
        async with Producer(kafka, client_id="test") as producer:
            await asyncio.gather(
                *(producer.publish(TOPICS[type(each)], each, key=each.scan_id.encode()) for each in messages)  # type: ignore[attr-defined]
            )

    asyncio.run(scenario())


def run_ledger(kafka: BrokerSettings, folder: Path, *arguments: str, **environment: str):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FEDIWARDEN_")}
    return subprocess.run(
        [sys.executable, "-m", "fediwarden", "ledger", *arguments],
        env=clean
        | {
            "FEDIWARDEN_DATA_DIR": str(folder),
            "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "FEDIWARDEN_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        }
        | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_day_in_which_everything_ended_well_adds_up_and_ends_with_0(fresh_kafka, tmp_path):
    at = now_ms() - 2 * HOUR
    late = answered("late", AnsweredBy.SPOOLED, image=1, at=at, carried_by="late")
    publish(
        fresh_kafka,
        answered("judged", AnsweredBy.VERDICT, image=2, at=at, carried_by="judged"),
        judged("judged", image=2, at=at),
        answered("known", AnsweredBy.KNOWN, image=2, at=at),
        late,
        late,
        judged("late", Decision.REJECT, image=1, at=at + 4000),
        looked(EnforcementOutcome.REMOVED, image=1, at=at + 4500),
        looked(EnforcementOutcome.ABSENT, image=1, at=at + 304_500, check=3, final=True),
        answered("dead", AnsweredBy.OVERLOAD, image=3, at=at),
        died("dead", image=3),
        answered("fresh", AnsweredBy.DEADLINE, image=4, at=now_ms()),
        answered("long ago", AnsweredBy.DEADLINE, image=5, at=at - 48 * HOUR),
    )
    ran = run_ledger(fresh_kafka, tmp_path, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    ledger = json.loads(ran.stdout)
    assert ledger["requests"] == 5
    assert {by: counts for by, counts in ledger["answered"].items() if any(counts.values())} == {
        by: {"accepted": 1, "refused": 0} for by in ("verdict", "known", "deadline", "overload", "spooled")
    }
    unjudged = ledger["unjudged"]
    assert unjudged["judged_later"] == {
        "requests": 1,
        "decisions": {"reject": 1},
        "after_seconds": {"p50": 4.0, "p95": 4.0, "longest": 4.0},
    }
    assert (unjudged["rejected"]["requests"], unjudged["rejected"]["removed"]) == (1, 1)
    assert unjudged["dead"] == {"requests": 1, "reasons": {"model-failed": 1}}
    assert [scan["scan_id"] for scan in unjudged["open"]["scans"]] == ["fresh"]
    assert (ledger["overdue"], ledger["judged_without_answer"], ledger["unreadable_records"]) == (0, 0, {})

    table = run_ledger(fresh_kafka, tmp_path)
    assert table.returncode == 0, table.stderr
    assert "found in pict-rs and removed" in table.stdout
    assert "fresh" in table.stdout
    assert "Nothing is open for more than 1 h." in table.stdout
    assert "503 busy" in table.stdout

    shorter = run_ledger(fresh_kafka, tmp_path, "--json", "--since", "1h", "--open-after", "0s")
    assert (shorter.returncode, json.loads(shorter.stdout)["requests"]) == (1, 1)


def test_something_open_for_more_than_an_hour_ends_with_1_and_is_named(fresh_kafka, tmp_path):
    at = now_ms() - 2 * HOUR
    publish(
        fresh_kafka,
        *(answered(f"lost-{n}", image=n, at=at, tenant="other") for n in range(25)),
        answered("mine", AnsweredBy.VERDICT, image=30, at=at),
        judged("nobody-was-told", image=31, at=at),
    )
    ran = run_ledger(fresh_kafka, tmp_path)
    assert ran.returncode == 1, ran.stderr
    assert "Open, or rejected and not removed, for more than 1 h: 25." in ran.stdout
    assert ran.stdout.count("lost-") == 20
    assert "and 5 more; --json names all of them" in ran.stdout
    assert "Judged, but no answer recorded: 1 " in ran.stdout
    everything = json.loads(run_ledger(fresh_kafka, tmp_path, "--json", "--tenant", "other").stdout)
    assert {scan["scan_id"] for scan in everything["unjudged"]["open"]["scans"]} == {f"lost-{n}" for n in range(25)}
    assert everything["requests"] == 25
    assert run_ledger(fresh_kafka, tmp_path, "--tenant", "default").returncode == 0
    nobody = run_ledger(fresh_kafka, tmp_path, "--tenant", "defualt")
    assert nobody.returncode == 2
    assert "no tenant 'defualt'" in nobody.stderr


def test_a_rejected_image_that_nobody_has_removed_ends_with_1_where_the_tenant_has_a_pict_rs(fresh_kafka, tmp_path):
    at = now_ms() - 2 * HOUR
    publish(fresh_kafka, answered("a", at=at), judged("a", Decision.REJECT, at=at + 1000))
    assert run_ledger(fresh_kafka, tmp_path).returncode == 0
    pict_rs = {
        "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS": "http://127.0.0.1:8080",
        "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS_API_KEY": "a-secret-api-key",
    }
    ran = run_ledger(fresh_kafka, tmp_path, **pict_rs)
    assert ran.returncode == 1, ran.stderr
    assert "is the enforcer running?" in ran.stdout
    publish(fresh_kafka, looked(EnforcementOutcome.FAILED, at=at + 2000))
    failing = run_ledger(fresh_kafka, tmp_path, "--json", **pict_rs)
    assert failing.returncode == 1
    assert [scan["scan_id"] for scan in json.loads(failing.stdout)["unjudged"]["unconfirmed"]] == ["a"]
    publish(fresh_kafka, looked(EnforcementOutcome.REMOVED, at=at + 60_000))
    looking = run_ledger(fresh_kafka, tmp_path, **pict_rs)
    assert looking.returncode == 1, "an hour after the first look the last one is still to come"
    assert "the last look is still to come" in looking.stdout
    publish(fresh_kafka, looked(EnforcementOutcome.ABSENT, at=at + 360_000, check=3, final=True))
    assert run_ledger(fresh_kafka, tmp_path, **pict_rs).returncode == 0


def test_records_that_cannot_be_read_are_told(fresh_kafka, tmp_path):
    async def scenario() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=fresh_kafka.bootstrap_servers)
        await producer.start()
        for topic in (ANSWERS, VERDICTS, IMAGES_DEAD, ENFORCEMENTS):
            await producer.send_and_wait(topic.full_name(fresh_kafka.topic_prefix), b"garbage", key=b"k")
        await producer.stop()

    asyncio.run(scenario())
    ran = run_ledger(fresh_kafka, tmp_path, "--json")
    assert ran.returncode == 0, ran.stderr
    ledger = json.loads(ran.stdout)
    assert ledger["unreadable_records"] == {"answers": 1, "enforcements": 1, "images.dead": 1, "verdicts": 1}
    assert ledger["requests"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "is no time"),
        (["--open-after", "soon"], "is no span of time"),
        (["--since", "1h", "--until", "2h"], "--since must lie before --until"),
    ],
)
def test_wrong_options_end_with_2_and_name_the_right_form(tmp_path, arguments, said):
    nowhere = BrokerSettings(bootstrap_servers="127.0.0.1:9")
    ran = run_ledger(nowhere, tmp_path, *arguments)
    assert ran.returncode == 2
    assert said in ran.stderr


def test_without_kafka_it_is_one_line_and_nothing_on_standard_output(tmp_path):
    ran = run_ledger(BrokerSettings(bootstrap_servers="127.0.0.1:9"), tmp_path, "--json")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("fediwarden: no Kafka at 127.0.0.1:9")
    assert ran.stderr.count("\n") == 1


def test_help_says_what_the_exit_code_means_and_what_is_not_in_it(tmp_path):
    ran = run_ledger(BrokerSettings(bootstrap_servers="127.0.0.1:9"), tmp_path, "--help")
    assert ran.returncode == 0
    for word in ("Exit code 1", "--since", "--until", "--tenant", "--open-after", "--json", "503"):
        assert word in ran.stdout
