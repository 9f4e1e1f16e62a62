"""The scenarios' own arithmetic, the pausing model, and a pipeline that really runs and really goes away."""

import asyncio
import json
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from bench.breakdown import Part, parse_step, to_markdown
from bench.load import Generator
from bench.pause import NEVER, PauseModel
from bench.pictures import make_picture
from bench.requests import Target
from bench.run import Result
from bench.run import to_markdown as table
from bench.stack import Served, Stack
from scanner.scoring import score_frames, score_labels
from schemas.messages import Decision
from tests.kafka import find_free_ports, java_options


def test_the_pausing_model_sleeps_for_each_frame_and_scores_nothing() -> None:
    model = PauseModel(20)
    frames = [(model.prepare(Image.new("RGB", (8, 8))),)] * 3
    started = time.perf_counter()
    scores = score_frames([model], frames)
    assert time.perf_counter() - started >= 0.060
    assert scores == [{"pause/nothing": 0.0}] * 3
    assert model.infer(frames[0]).dtype == np.float32


def test_the_policy_of_the_pausing_model_accepts_what_it_scores() -> None:
    labels = score_labels([PauseModel(1)])
    assert NEVER.judge([dict.fromkeys(labels, 0.0)]).decision is Decision.ACCEPT
    assert NEVER.judge([dict.fromkeys(labels, 1.0)]).decision is Decision.REJECT


def test_pauses_of_different_length_are_different_models() -> None:
    assert PauseModel(30).id != PauseModel(31).id


def test_a_step_is_read_from_prometheus_text() -> None:
    text = (
        "# HELP fediwarden_gateway_frames_seconds From handing\n"
        'fediwarden_gateway_frames_seconds_bucket{le="0.01"} 3.0\n'
        "fediwarden_gateway_frames_seconds_count 4.0\n"
        "fediwarden_gateway_frames_seconds_sum 0.25\n"
    )
    assert parse_step(text, "frames") == (0.25, 4.0)
    assert parse_step(text, "publish") == (0.0, 0.0)


def test_a_row_says_what_was_asked_what_was_reached_and_whether_that_is_enough() -> None:
    result = Result()
    result.at_most("s", "p50", 60.0, 59.96, "ms")
    result.at_most("s", "p99", 400.0, 400.1, "ms")
    result.at_least("s", "rate", 70.0, 69.9, "/s")
    result.note("s", "seen", "7")
    assert [row.met for row in result.rows] == [True, False, False, None]
    assert table(result.rows).splitlines()[2:] == [
        "| s | p50 | <= 60 ms | 60.0 ms | yes |",
        "| s | p99 | <= 400 ms | 400.1 ms | **no** |",
        "| s | rate | >= 70 /s | 69.9 /s | **no** |",
        "| s | seen |  | 7 |  |",
    ]


def test_a_breakdown_is_a_table_of_its_parts() -> None:
    assert to_markdown([Part("hash", 0.128, "hashlib")]).splitlines()[-1] == "| hash | 0.13 | hashlib |"


def test_bytes_of_a_topic_are_summed_over_its_partitions(tmp_path: Path) -> None:
    data = tmp_path / "kafka" / "node-1" / "data"
    for folder, size in (("images-0", 3), ("images-11", 4), ("images.archive-0", 5)):
        (data / f"fediwarden.{folder}").mkdir(parents=True)
        (data / f"fediwarden.{folder}" / "00000000000000000000.log").write_bytes(bytes(size))
        (data / f"fediwarden.{folder}" / "00000000000000000000.index").write_bytes(bytes(100))
    served = Served("http://127.0.0.1:1/api/v1/scan/IPADDR", "", tmp_path, {})
    assert served.topic_bytes() == {"images": 7, "images.archive": 5}
    assert served.base_url == "http://127.0.0.1:1"


@pytest.mark.long
@pytest.mark.kafka
def test_a_pipeline_with_a_pausing_model_answers_by_verdict_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEDIWARDEN_KAFKA__JAVA_OPTIONS", json.dumps(java_options()))

    async def run() -> tuple[Served, dict[str, int], list[psutil.Process]]:
        arguments = ("--pause-ms", "5", "--scanners", "2")
        ports = ("--port", str(find_free_ports(1)), "--kafka-port", str(find_free_ports(2)))
        async with Stack(*arguments, *ports) as served:
            processes = [psutil.Process(pid) for pids in served.pids.values() for pid in pids]
            processes += [child for process in list(processes) for child in process.children(recursive=True)]
            generator = Generator(Target.parse(served.url), [make_picture(seed) for seed in range(2)])
            report = await generator.measure("a few", concurrency=2, seconds=1.0, groups=served.pids)
            generator.close()
            assert report.cpu["gateway"].total_ms > 0
            assert served.topic_bytes()["images"] > 0
        return served, {**report.answered_by, **report.errors}, processes

    served, counts, processes = asyncio.run(run())
    assert {name: len(pids) for name, pids in served.pids.items()} == {"kafka": 1, "gateway": 1, "scanner": 2}
    assert counts.keys() == {"verdict"}
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    assert not served.data_dir.exists()
