"""The port of the metrics: there when asked for, refused with the remedy, and one for each process of `up`."""

import socket

import httpx
import pytest

from fediwarden.metrics.listening import CannotListen, port_under_up, showing
from fediwarden.metrics.settings import MetricsSettings
from scanner.metrics import ScannerMetrics
from schemas.messages import Decision, Stage
from tests.kafka import find_free_ports


def test_it_shows_what_is_counted_until_the_context_ends() -> None:
    metrics, port = ScannerMetrics(), find_free_ports(1)
    metrics.count_verdict(Decision.REJECT, Stage.LIVE, {"safety-s": "a" * 16, "open-nsfw": "b" * 16}, "c" * 64)
    with showing(metrics.registry, MetricsSettings(port=port)):
        said = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    models = "open-nsfw:bbbbbbbbbbbb+safety-s:aaaaaaaaaaaa"
    labels = f'{{decision="reject",models="{models}",policy="cccccccccccc",stage="live"}}'
    assert f"fediwarden_scanner_verdicts_total{labels} 1.0" in said
    assert "process_resident_memory_bytes" in said
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_without_a_port_there_is_none() -> None:
    with showing(ScannerMetrics().registry, MetricsSettings()):
        pass


def test_a_taken_port_is_refused_with_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = MetricsSettings(port=taken.getsockname()[1])
        with pytest.raises(CannotListen, match=r"metrics\.port"), showing(ScannerMetrics().registry, settings):
            pass


def test_under_up_each_process_has_a_port_of_its_own() -> None:
    settings = MetricsSettings(port=14060)
    names = ["recorder", "enforcer", "lemmy", "scanner", *(f"scanner-{number}" for number in range(2, 65))]
    ports = [port_under_up(settings, name) for name in names]
    assert ports[:5] == [14060, 14061, 14062, 14070, 14071]
    assert len(set(ports)) == len(names)
    assert port_under_up(settings, "scanner-1") == 14070
    assert port_under_up(settings, "gateway") is None, "it has one of its own"
    assert port_under_up(MetricsSettings(), "scanner") is None
