"""compose.kafka3.yaml: three brokers, of which one goes away while images come. The tests run in this order."""

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.compose.deployment import SERVICES, Deployment, eventually
from tests.stand_ins import accepted_picture, rejected_picture

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1200)]

FIRST, LOAD = 2, 40
DESCRIBE = """
import asyncio, json, os
from aiokafka.admin import AIOKafkaAdminClient

async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=os.environ["FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS"])
    await admin.start()
    try:
        (topic,) = await admin.describe_topics(["fediwarden.images"])
        print(json.dumps([[len(part["replicas"]), len(part["isr"])] for part in topic["partitions"]]))
    finally:
        await admin.close()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("house"), (*SERVICES, "kafka-2", "kafka-3"))
    deployment.draw(
        accepted_picture(0),
        rejected_picture(1),
        *(rejected_picture(at) if at % 4 == 0 else accepted_picture(at) for at in range(FIRST, FIRST + LOAD)),
    )
    try:
        yield deployment
    finally:
        deployment.take_down()


def replicas(house: Deployment) -> set[tuple[int, int]]:
    """How many replicas the partitions of images have, and how many of them are in sync."""
    return {tuple(each) for each in json.loads(house.execute("gateway", "python", "-c", DESCRIBE))}


def test_three_brokers_come_up_with_every_message_on_each(house: Deployment) -> None:
    house.init()
    house.set(COMPOSE_FILE="compose.yaml:compose.kafka3.yaml")
    house.up()
    house.start_client()
    house.await_scanner()
    assert [answer["status"] for answer in house.judge(FIRST)] == [200, 406]
    assert replicas(house) == {(3, 3)}


@pytest.mark.parametrize("broker", ["kafka", "kafka-3"])
def test_while_one_is_away_nothing_waits(house: Deployment, broker: str) -> None:
    half = FIRST + LOAD // 2
    first, last = (FIRST, half) if broker == "kafka" else (half, FIRST + LOAD)
    load = house.post_beside(house.address, first, last, between_s=1.0)
    house.compose("stop", broker)
    said, _ = load.communicate(timeout=300)
    answers = [json.loads(line) for line in said.splitlines()]
    print(Counter((answer["status"], answer["answered_by"]) for answer in answers))
    assert len(answers) == last - first
    # While what the broker led finds another leader, some may be answered by the deadline; none is left unanswered.
    assert {answer["status"] for answer in answers} <= {200, 406}
    assert Counter(answer["answered_by"] for answer in answers[-5:]) == {"verdict": 5}
    eventually(lambda: replicas(house) == {(3, 2)}, within_s=30, what="the others know that it is away")
    house.compose("up", "-d", broker)
    house.await_health()
    eventually(lambda: replicas(house) == {(3, 3)}, within_s=180, what=f"{broker} has caught up")
