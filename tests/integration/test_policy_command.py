"""`fediwarden policy` as a person runs it: real files, the real models, and the verdict log of a real Kafka."""

import asyncio
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from scanner.models.loading import every_label
from scanner.policy import load_policy
from schemas.broker import BrokerSettings, Producer
from schemas.messages import Decision, Verdict
from schemas.topics import VERDICTS
from tests.integration.test_cli import _at, _run
from tests.models import models_dir
from tests.processes import Pipeline
from tests.stand_ins import accepted_picture, rejected_picture
from tests.unit.fediwarden.policies.test_rejudging import verdict

DEFAULT = load_policy(None, every_label())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled pictures: four to accept, three to reject, a film to accept, and a file that is no picture."""
    models_dir()
    folder = tmp_path_factory.mktemp("pictures")
    for wanted, draw, count in (("accept", accepted_picture, 4), ("reject", rejected_picture, 3)):
        (folder / wanted).mkdir()
        for number in range(count):
            (folder / wanted / f"{number}.jpg").write_bytes(draw(number))
    first, *others = (Image.open(io.BytesIO(accepted_picture(number))) for number in range(3))
    first.save(folder / "accept" / "film.gif", save_all=True, append_images=others, duration=100)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_check_passes_the_shipped_policies_and_names_the_place_of_a_mistake(tmp_path: Path) -> None:
    right = _run({}, "policy", "check", "default-cpu", "default-clip", "horde-parity", "strict", "observe")
    assert right.returncode == 0, right.stderr
    assert f"default-cpu: ok. default-cpu ({DEFAULT.id}): 4 rules" in right.stdout
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(Path("scanner/policies/strict.toml").read_text().replace('"reject"', '"refuse"', 1))
    both = _run({}, "policy", "check", "--json", str(wrong), "strict")
    assert both.returncode == 1
    first, second = json.loads(both.stdout)
    assert (first["ok"], first["line"], first["column"]) == (False, 16, 12)
    assert "it must be accept, review or reject" in first["error"]
    assert second["ok"]
    missing = _run({}, "policy", "check", str(tmp_path / "missing.toml"))
    assert missing.returncode == 1
    assert "cannot be read" in missing.stdout


def test_explain_shows_scores_and_distances_as_the_pipeline_would_have_them(pictures: Path) -> None:
    files = [str(pictures / "reject" / "0.jpg"), str(pictures / "accept" / "film.gif"), str(pictures / "notes.txt")]
    told = _run({}, "policy", "explain", "default-cpu", *files)
    assert told.returncode == 2  # one is no picture
    assert "notes.txt: not_an_image" in told.stderr
    assert "0.jpg: reject (image, 1 frame)" in told.stdout
    assert "film.gif: accept (animation, 3 frames)" in told.stdout
    assert "rule sexual (reject): FIRED in frame 0, by 0.1510. Two models are sure" in told.stdout
    assert "+ safety-s/NSFW at least 0.8: 0.9510 (+0.1510)" in told.stdout
    plain = _run({}, "policy", "explain", "default-cpu", "--json", *files[:2])
    assert plain.returncode == 0, plain.stderr
    bad, film = map(json.loads, plain.stdout.splitlines())
    assert (bad["decision"], film["decision"], film["frames_at_ms"]) == ("reject", "accept", [0, 100, 200])
    assert [rule["fired"] for rule in bad["rules"]] == [True, False, True, False]
    assert bad["scores"]["safety-s/NSFW"]["highest"] == pytest.approx(0.951, abs=1e-3)


def test_explain_says_what_to_do_about_a_model_that_is_not_there(pictures: Path, tmp_path: Path) -> None:
    picture = str(pictures / "reject" / "0.jpg")
    told = _run({"FEDIWARDEN_SCANNER__MODELS_DIR": str(tmp_path)}, "policy", "explain", "strict", picture)
    assert told.returncode == 78
    assert "fediwarden models fetch" in told.stderr
    assert "Traceback" not in told.stderr


def test_test_measures_labelled_folders_and_draws_the_curves(pictures: Path, tmp_path: Path) -> None:
    chart = tmp_path / "roc.svg"
    told = _run({}, "policy", "test", "default-cpu", str(pictures), "--picture", str(chart), "--json")
    assert told.returncode == 0, told.stderr
    measured = json.loads(told.stdout)
    assert measured["files"] == 8
    assert measured["confusion"]["accept"] == {"accept": 5, "review": 0, "reject": 0}
    assert measured["confusion"]["reject"] == {"accept": 0, "review": 0, "reject": 3}
    best = measured["measures"]["open-nsfw/nsfw"]
    assert best["area"] == 1.0
    assert (best["threshold"]["harmless_flagged"], best["threshold"]["bad_found"]) == (0, 3)
    drawn = ET.parse(chart).getroot()
    assert len([line for line in drawn.iter() if line.tag.endswith("polyline")]) == 4
    words = _run({}, "policy", "test", "default-cpu", str(pictures))
    assert "3 of 3, 100.00% (29.24% to 100.00%)" in words.stdout


def test_test_refuses_a_folder_without_labels(tmp_path: Path) -> None:
    told = _run({}, "policy", "test", "default-cpu", str(tmp_path))
    assert told.returncode == 2
    assert "has no folder accept, review or reject" in told.stderr


@pytest.mark.kafka
def test_diff_judges_the_verdict_log_anew_and_says_what_it_cannot_know(fresh_kafka: BrokerSettings) -> None:
    doubtful = {"safety-s/NSFW": 0.6, "safety-s/NSFL": 0.1, "open-nsfw/nsfw": 0.3}
    log = [
        verdict("doubtful-1", 0, 0, scores=doubtful, policy=DEFAULT.id, decision=Decision.REVIEW),
        verdict("doubtful-2", 0, 0, scores=doubtful, policy=DEFAULT.id, decision=Decision.REVIEW),
        verdict("film", 0, 0, scores=doubtful, policy=DEFAULT.id, frame_count=8, media_type="video/mp4"),
        verdict("harmless", 0, 0, scores=dict.fromkeys(doubtful, 0.1), policy=DEFAULT.id),
        verdict("listed", 0, 0, scores={}, models={}, policy=""),
    ]

    async def publish() -> None:
        async with Producer(fresh_kafka, client_id="test") as producer:
            for received in log:
                assert isinstance(received.message, Verdict)
                await producer.publish(VERDICTS, received.message, key=received.message.sha256)

    asyncio.run(publish())
    told = _run(_at(fresh_kafka), "policy", "diff", "default-cpu", "strict", "--since", "1h")
    assert told.returncode == 0, told.stderr
    assert "rule 'gory': when: safety-s/NSFL at least 0.8 becomes safety-s/NSFL at least 0.5" in told.stdout
    assert "3 pictures of one frame" in told.stdout
    assert "2 (66.67%) review -> reject" in told.stdout
    assert "1 picture of several frames, judged by their highest scores (an estimate" in told.stdout
    examples = next(line for line in told.stdout.splitlines() if "for example" in line).partition("reject: ")[2]
    assert set(examples.split(", ")) == {"doubtful-1", "doubtful-2", "film"}
    assert "1 verdict not judged anew, for lack of the scores" in told.stdout
    assert "1 of those that default-cpu judged come out differently" in told.stdout
    plain = json.loads(_run(_at(fresh_kafka), "policy", "diff", "strict", "strict", "--since", "1h", "--json").stdout)
    assert plain["changes"] == []
    assert plain["log"]["single_frame"] == {"pictures": 3, "flips": {}}


@pytest.mark.kafka
def test_a_policy_that_the_scanner_has_no_model_for_ends_it_with_78_and_the_place(
    fresh_kafka: BrokerSettings, tmp_path: Path
) -> None:
    models_dir()
    with Pipeline(fresh_kafka, tmp_path, FEDIWARDEN_SCANNER__POLICY="horde-parity") as pipeline:
        scanner = pipeline.start("scanner")
        assert scanner.wait(60) == 78
        assert "policies/horde-parity.toml, line 16, column 1: no model 'clip' here takes the prompts" in scanner.log
