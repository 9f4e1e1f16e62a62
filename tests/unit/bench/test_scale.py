"""The simulation of docs/scale.md against what queueing theory knows, and against sense."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.scale import Costs, Fleet, arrive, judge, main, serve, simulate

FREE = Costs(gateway_ms=0, frames_ms=0, scanner_ms=0, broker_ms=0, generator_ms=0, transit_ms=0)


def test_arrivals_have_the_rate_asked_for_and_bursts_bear_theirs():
    moments = arrive(50.0, 600.0, 3.0, np.random.default_rng(1))
    assert len(moments) == pytest.approx(30_000, rel=0.03)
    in_bursts = np.sum(moments % 60 < 10) / 100
    assert in_bursts == pytest.approx(150, rel=0.05)
    with pytest.raises(ValueError, match="at most 6 times"):
        arrive(50.0, 60.0, 7.0, np.random.default_rng(1))


def test_two_servers_take_what_comes_in_order():
    done = serve(np.array([0.0, 0.0, 0.0, 5.0]), np.array([1.0, 2.0, 1.0, 1.0]), 2)
    assert done.tolist() == [1.0, 2.0, 2.0, 6.0]


def test_a_scanner_takes_batches_and_leaves_what_would_be_late():
    fleet = Fleet(batch=2, batch_ms=100, image_ms=100)
    judged, worked = judge(np.array([0.0, 0.1, 0.1, 0.1]), np.array([9.0, 9.0, 0.15, 9.0]), fleet)
    assert judged[[0, 1, 3]].tolist() == pytest.approx([0.2, 0.5, 0.5])
    assert np.isnan(judged[2])
    assert worked == pytest.approx(0.5)


def test_one_scanner_waits_as_long_as_theory_says():
    """M/D/1 at half load: the mean wait is half a service, so the median answer is between one service and two."""
    fleet = Fleet(gateways=1, cores=1, scanners=1, partitions=1, batch=1, image_ms=20)
    outcome = simulate(25.0, fleet, FREE, seconds=240)
    assert outcome.scanners_busy == pytest.approx(0.5, rel=0.05)
    assert 20 <= outcome.p50 <= 30
    assert outcome.missed == 0


def test_more_than_can_be_judged_misses_what_is_over_and_no_more():
    fleet = Fleet(gateways=4, cores=4, scanners=2, partitions=12, image_ms=50)
    outcome = simulate(80.0, fleet, Costs(), seconds=120)
    assert outcome.missed == pytest.approx(0.5, abs=0.05)
    assert outcome.scanners_busy > 0.97


def test_partitions_that_do_not_divide_among_the_scanners_overload_some():
    fleet = Fleet(gateways=4, cores=4, scanners=8, partitions=64, image_ms=50)
    even, uneven = (simulate(110.0, replace(fleet, partitions=count), Costs(), seconds=120) for count in (64, 9))
    assert even.missed < 0.01
    assert uneven.missed > 0.025, "the scanner of two partitions gets 24 a second and judges 20"


def test_a_measured_run_is_set_beside_the_same_rate(tmp_path, capsys):
    cpu = {group: {"total_ms": 4.0} for group in ("gateway", "scanner", "kafka")}
    report = {"cpu": cpu, "generator_cpu_ms": 1.0, "rate_offered": 20.0, "seconds": 30.0, "sent": 600}
    report |= {"answered_by": {"verdict": 594}, "p50": 60.0, "p95": 90.0, "p99": 120.0}
    (tmp_path / "bench.json").write_text(json.dumps({"measured": {"fifty": {"fifty": report, "kafka_kilobytes": {}}}}))
    assert main(["--check", str(tmp_path / "bench.json")]) == 0
    said = capsys.readouterr().out
    assert "| 20.0 | measured | 60 / 90 / 120 | 1.00% |" in said
    assert "| | simulated | " in said
