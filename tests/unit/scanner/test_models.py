"""The two default models against their reference implementations, and the pictures that stand in for bad ones."""

import importlib.util
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from scanner.models.extra import ExtraMissing
from scanner.models.loading import load_models
from scanner.models.model import ModelError, model_id
from scanner.models.registry import ModelMissing, UnknownModel
from scanner.policy import load_policy
from scanner.scoring import embed_frames, score_frames, score_labels
from schemas.messages import Decision
from tests.models import DATA, MICROCLIP_REGISTRY, default_models, models_dir
from tests.stand_ins import accepted_picture, rejected_picture
from tests.unit.scanner.reference_scores import GOLDEN, pictures

REFERENCE = json.loads(GOLDEN.read_text())["scores"]


def scores_of(image: Image.Image) -> dict[str, float]:
    models = default_models()
    return score_frames(models, [tuple(model.prepare(image) for model in models)])[0]


@pytest.mark.parametrize("name", pictures())
def test_scores_are_those_of_the_reference_implementations(name: str) -> None:
    ours, theirs = scores_of(Image.fromarray(pictures()[name])), REFERENCE[name]
    assert ours["open-nsfw/nsfw"] == pytest.approx(theirs["open-nsfw/nsfw"], abs=1e-3)
    # Where the reference scales, libvips' arithmetic is a tenth of a grey level darker than Pillow's.
    tolerance = 1e-3 if name.endswith("224") else 5e-3
    for label in ("safety-s/NSFL", "safety-s/NSFW"):
        assert ours[label] == pytest.approx(theirs[label], abs=tolerance)


def test_the_reference_pictures_reach_from_harmless_to_sure() -> None:
    for label in ("safety-s/NSFW", "open-nsfw/nsfw"):
        scores = [reference[label] for reference in REFERENCE.values()]
        assert min(scores) < 0.05
        assert max(scores) > 0.9


def test_a_frame_scores_the_same_alone_and_in_a_batch() -> None:
    models = default_models()
    frames = [tuple(model.prepare(Image.fromarray(pixels)) for model in models) for pixels in pictures().values()]
    together = score_frames(models, frames, at_most=8)
    for frame, scores in zip(frames, together, strict=True):
        assert score_frames(models, [frame])[0] == pytest.approx(scores, abs=1e-4)


def test_prepared_frames_are_small_and_of_one_shape() -> None:
    image = Image.new("RGB", (512, 300))
    assert [(p.shape, p.dtype) for p in (model.prepare(image) for model in default_models())] == [
        ((3, 224, 224), np.uint8),
        ((224, 224, 3), np.uint8),
    ]


def test_an_id_depends_on_weights_and_preprocessing() -> None:
    assert len({model_id("a", "1"), model_id("b", "1"), model_id("a", "2")}) == 3
    assert len({model.id for model in default_models()}) == 2


def test_models_that_are_unknown_or_not_fetched_are_named_with_the_remedy(tmp_path: object) -> None:
    with pytest.raises(UnknownModel, match="'clop'; the registry has safety-s, open-nsfw, clip"):
        load_models(["clop"], models_dir())
    with pytest.raises(ModelMissing, match="fediwarden models fetch safety-s"):
        load_models(["safety-s"], models_dir() / "nowhere")


def test_cuda_without_cuda_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ModelError, match="install onnxruntime-gpu"):
        load_models(["safety-s"], models_dir(), device="cuda")


@pytest.mark.parametrize(
    ("side", "kind"), [(256, "JPEG"), (1400, "JPEG"), (512, "PNG"), (512, "WEBP"), (512, "AVIF"), (512, "GIF")]
)
def test_the_stand_ins_get_the_answers_they_stand_for(side: int, kind: str) -> None:
    policy = load_policy(None, score_labels(default_models()))
    for seed in (0, 1):
        for make, decision in ((rejected_picture, Decision.REJECT), (accepted_picture, Decision.ACCEPT)):
            with Image.open(io.BytesIO(make(seed, side=side, kind=kind))) as picture:
                frame = picture.convert("RGB")
            frame.thumbnail((512, 512))
            buffer = io.BytesIO()
            frame.save(buffer, "JPEG", quality=80)
            assert policy.judge([scores_of(Image.open(buffer))]).decision is decision


def test_stand_ins_are_repeatable_and_all_different() -> None:
    assert rejected_picture(5) == rejected_picture(5)
    assert len({rejected_picture(seed, side=256) for seed in range(50)}) == 50


def test_the_default_models_run_without_torch_and_transformers() -> None:
    code = (
        "import sys; from pathlib import Path; import scanner.service\n"
        "from scanner.models.loading import load_models\n"
        "load_models(('safety-s', 'open-nsfw'), Path(sys.argv[1]), device='cpu', threads=1)\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, str(models_dir())], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_a_clip_model_without_the_extra_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else there(name))
    with pytest.raises(
        ExtraMissing, match=r"model 'microclip' needs torch, .*python\S* -m pip install 'fediwarden\[gpu\]'"
    ):
        load_models(["microclip"], DATA, registry=MICROCLIP_REGISTRY)


def test_a_clip_model_is_loaded_beside_classifiers() -> None:
    (safety_s,) = load_models(["safety-s"], models_dir(), registry=MICROCLIP_REGISTRY, device="cpu")
    (microclip,) = load_models(["microclip"], DATA, registry=MICROCLIP_REGISTRY, device="cpu", precision="fp32")
    models = [safety_s, microclip]
    frames = [tuple(model.prepare(Image.new("RGB", (90, 60), "red")) for model in models)] * 3
    assert score_labels(models) == ("safety-s/NSFL", "safety-s/NSFW")
    assert [set(scores) for scores in score_frames(models, frames)] == [set(score_labels(models))] * 3
    vectors = embed_frames(models, frames, at_most=2)
    assert {name: found.shape for name, found in vectors.items()} == {"microclip": (3, 64)}
