"""The reference of the metrics, and that dashboards, alert rules and their page speak of what there is."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fediwarden.metrics.reference import BEGIN, END, MetricEntry, metrics_reference, read_metrics

ROOT = Path(__file__).parents[4]
COMPOSE = ROOT / "compose"
DASHBOARDS = sorted((COMPOSE / "grafana" / "dashboards").glob("*.json"))
RULES = COMPOSE / "prometheus" / "rules.yaml"
PROCESSES = read_metrics()
LABELS = {
    name: set(labels) for entries in PROCESSES.values() for entry in entries for name, labels in entry.exposed.items()
} | {"up": set(), "ALERTS": {"alertname", "alertstate"}}
FROM_SCRAPING = {"job", "instance"}
FUNCTIONS = {
    *("sum", "min", "max", "count", "absent", "rate", "increase", "deriv", "changes", "histogram_quantile", "time"),
    *("by", "and", "or", "on", "unless"),
}


def expressions() -> Iterator[tuple[str, str, str]]:
    """Where, the expression, and the legend or "": of every panel and every rule."""
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{file.name}: {panel['title']}", target["expr"], target["legendFormat"]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"], rule["annotations"]["summary"].replace("{{ $labels.", "{{")


def faults_of(expression: str, legend: str = "") -> list[str]:
    """What in an expression, or in its legend, is no metric, function or label of ours."""
    text = re.sub(r'"[^"]*"', '""', expression)
    faults, known = [], set(FROM_SCRAPING)
    for name, matchers in re.findall(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(\{[^}]*\})?", re.sub(r"\[[^]]*\]", "", text)):
        allowed = LABELS.get(name, set()) | FROM_SCRAPING
        known |= allowed
        faults += [f"{name} has no {each}" for each in re.findall(r"(\w+)\s*[=!]", matchers) if each not in allowed]
    grouped = [each.strip() for group in re.findall(r"by \(([^)]*)\)", text) for each in group.split(",")]
    faults += [f"nothing has {each}" for each in grouped if each not in known]
    bare = re.sub(r"by \([^)]*\)|\{[^}]*\}|\[[^]]*\]|\d+(\.\d+)?", " ", text)
    names = set(re.findall(r"[a-zA-Z_][a-zA-Z0-9_]*", bare))
    faults += [f"there is no {each}" for each in sorted(names - LABELS.keys() - FUNCTIONS)]
    shown = grouped or known
    told = re.findall(r"\{\{ ?(\w+) ?\}\}", legend)
    return faults + [f"the legend has no {each}" for each in told if each not in shown]


@pytest.mark.parametrize(("where", "expression", "legend"), list(expressions()))
def test_dashboards_and_rules_ask_for_what_there_is(where: str, expression: str, legend: str) -> None:
    assert faults_of(expression, legend) == []


@pytest.mark.parametrize(
    ("expression", "legend"),
    [
        ("sum(rate(fediwarden_gateway_answers[5m]))", ""),  # without _total
        ('fediwarden_gateway_answers_total{answerd_by="known"}', ""),
        ("sum by (reasn) (fediwarden_scanner_unjudgeable_total)", ""),
        ("sum by (reason) (fediwarden_scanner_unjudgeable_total)", "{{tenant}}"),
        ("histogram_quantile(0.5, fediwarden_gateway_request_seconds)", ""),  # without _bucket
    ],
)
def test_the_check_finds_what_there_is_not(expression: str, legend: str) -> None:
    assert faults_of(expression, legend)


def test_the_reference_in_the_docs_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    held = page.partition(BEGIN)[2].partition(END)[0].strip()
    assert held == metrics_reference().strip(), "out of date: make reference"


def test_names_are_as_prometheus_wants_them() -> None:
    entries: set[MetricEntry] = set().union(*PROCESSES.values())
    ours = [entry for entry in entries if entry.name.startswith("fediwarden_")]
    assert len({entry.name for entry in ours}) == len(ours), "a name means the same in every process"
    assert [entry.name for entry in ours if (entry.kind == "counter") is not entry.name.endswith("_total")] == []
    assert [entry.name for entry in ours if re.search(r"_(ms|milliseconds|kb|mb|minutes|hours)(_|$)", entry.name)] == []
    assert [entry.name for entry in ours if not entry.documentation.endswith((".", "..."))] == []
    identifying = {"scan_id", "sha256", "url", "actor", "user", "alias"}
    assert [entry.name for entry in ours if identifying & set(entry.labels)] == []


def test_every_alert_has_its_place_on_the_page_and_its_test() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    tests = (COMPOSE / "prometheus" / "tests" / "rules_test.yaml").read_text()
    alerts = [where for where, _, _ in expressions() if where.startswith("Fediwarden")]
    assert len(alerts) > 20
    assert [alert for alert in alerts if f"### {alert}\n" not in page] == []
    assert [alert for alert in alerts if len(re.findall(rf"alertname: {alert}\b", tests)) < 2] == []


def test_dashboards_are_whole() -> None:
    assert [file.name for file in DASHBOARDS] == ["audit.json", "kafka.json", "overview.json", "scanners.json"]
    for file in DASHBOARDS:
        board = json.loads(file.read_text())
        ids = [panel["id"] for panel in board["panels"]]
        places = [panel["gridPos"] for panel in board["panels"]]
        cells = {
            (x, y)
            for at in places
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert len(set(ids)) == len(ids)
        assert sum(at["w"] * at["h"] for at in places) == len(cells), "no panel lies on another"
        assert max(at["x"] + at["w"] for at in places) <= 24
        assert {panel["datasource"]["uid"] for panel in board["panels"] if "datasource" in panel} == {"prometheus"}
