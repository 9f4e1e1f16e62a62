"""compose.observability.yaml: Prometheus finds every process, and its rules, without a word more.

Grafana is left out: it is in no package registry. Its dashboards are held against the metrics' names in the unit tests.
The tests run in this order.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.compose.deployment import SERVICES, Deployment, eventually
from tests.stand_ins import accepted_picture, rejected_picture

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1200)]

PROCESSES = ("gateway", "scanner", "enforcer", "recorder", "audit")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("house"), (*SERVICES, "prometheus"))
    deployment.draw(accepted_picture(0), rejected_picture(1))
    try:
        yield deployment
    finally:
        deployment.take_down()


def ask(house: Deployment, path: str) -> Any:
    """What Prometheus' API says, asked from its own container: no port of it is published."""
    said = house.execute("prometheus", "wget", "--quiet", "--output-document=-", f"http://127.0.0.1:9090/api/v1/{path}")
    return json.loads(said)["data"]


def test_prometheus_comes_up_with_the_rest(house: Deployment) -> None:
    house.init()
    house.set(COMPOSE_FILE="compose.yaml:compose.observability.yaml", GRAFANA_PASSWORD="of-nobody")
    house.up(*house.services)
    house.start_client()
    house.await_scanner()
    house.post(house.address, 0, 2)


def test_every_process_is_scraped(house: Deployment) -> None:
    def are_up() -> bool:
        targets = ask(house, "targets?state=active")["activeTargets"]
        print([(each["labels"]["job"], each["health"], each["lastError"]) for each in targets])
        return {each["labels"]["job"] for each in targets if each["health"] == "up"} == set(PROCESSES)

    eventually(are_up, within_s=120, what=f"Prometheus reaches {', '.join(PROCESSES)}")


def test_its_rules_are_loaded_and_none_of_them_fails(house: Deployment) -> None:
    def are_evaluated() -> bool:
        rules = [rule for group in ask(house, "rules")["groups"] for rule in group["rules"]]
        assert all(rule["health"] != "err" for rule in rules), [rule.get("lastError") for rule in rules]
        return bool(rules) and all(rule["health"] == "ok" for rule in rules)

    eventually(are_evaluated, within_s=120, what="every rule is evaluated")


def test_what_was_judged_is_counted(house: Deployment) -> None:
    def counted() -> float:
        found = ask(house, "query?query=sum(fediwarden_gateway_answers_total)")["result"]
        return float(found[0]["value"][1]) if found else 0.0

    eventually(lambda: counted() >= 2, within_s=60, what="both images are counted")
    assert ask(house, "query?query=ALERTS%7Balertstate%3D%22firing%22%7D")["result"] == []
