"""More images than can be judged in time: answered at once by policy, judged later, and none of them lost."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from schemas.broker import BrokerSettings
from schemas.messages import Decision, ImageSubmitted
from schemas.topics import IMAGES, IMAGES_BACKLOG, VERDICTS
from tests import pictures
from tests.gateways import running_gateway, wait_for
from tests.responder import Responder
from tests.topics import read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.alone]  # what is in time and what is not depends on the load

PICT_RS = "/api/v1/scan/IPADDR"


def test_what_cannot_be_judged_in_time_is_answered_by_policy_and_judged_from_the_backlog(
    fresh_kafka: BrokerSettings,
) -> None:
    picture = pictures.make("png", seed=1)

    def judge(image: ImageSubmitted) -> Decision:
        return Decision.ACCEPT

    with (
        Responder(fresh_kafka, judge, lanes=(IMAGES, IMAGES_BACKLOG), pause_s=0.1) as scanner,
        running_gateway(fresh_kafka, deadline_ms=2000) as running,
        ThreadPoolExecutor(40) as threads,
    ):
        running.ready()

        def post(number: int) -> httpx.Response:
            return httpx.post(f"{running.url}{PICT_RS}", content=picture + b"%d" % number, timeout=30)

        answers = list(threads.map(post, range(160)))  # ten a second can be judged; forty wait at any time
        by = Counter(answer.json().get("answered_by", answer.status_code) for answer in answers)
        assert by["verdict"] > 0
        assert by["overload"] > 0
        let_in = {answer.json()["scan_id"]: answer.json()["answered_by"] for answer in answers if answer.is_success}
        scanner.hurry()
        wait_for(lambda: {record.message.scan_id for record in read_topic(fresh_kafka, VERDICTS)} >= let_in.keys())
        # A request that a slow disk had refused may have its image judged all the same.
        assert {scan for scan, by in let_in.items() if by == "overload"} <= {i.scan_id for i in scanner.from_backlog}


def test_the_same_bytes_a_thousand_times_are_scanned_once_and_answered_a_thousand_times(
    fresh_kafka: BrokerSettings,
) -> None:
    picture = pictures.make("png", seed=2)
    with (
        Responder(fresh_kafka, lambda _: Decision.REJECT, pause_s=3.0) as scanner,
        running_gateway(fresh_kafka, deadline_ms=60_000, max_in_flight=1000) as running,
        ThreadPoolExecutor(100) as threads,
    ):
        running.ready()
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
        with httpx.Client(base_url=running.url, timeout=60, limits=limits) as client:
            answers = list(threads.map(lambda _: client.post(PICT_RS, content=picture), range(1000)))
        assert Counter(answer.status_code for answer in answers) == {406: 1000}
        assert {answer.json()["answered_by"] for answer in answers} <= {"verdict", "known"}
        assert len(scanner.seen) == 1
