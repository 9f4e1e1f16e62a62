"""CLIP and SigLIP checkpoints: the vectors are transformers' own, and what cannot be run is named."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from scanner.models.entries import CheckpointEntry
from scanner.models.model import ModelError, is_classifier, is_embedder
from scanner.models.pinning import pin_checkpoint
from scanner.models.registry import ModelDamaged, load_registry, verify_checkpoint
from tests.microclip.shapes import LABELS, draw_shape
from tests.models import DATA, load_microclip, microclip

if TYPE_CHECKING:
    import torch
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from scanner.models.clip import CheckpointUnusable, Clip, TextTooLong
    from scanner.models.pixels import PreprocessingUnknown

FOLDER = DATA / "microclip"
TEXTS = [f"a photo of a {colour} {shape}" for colour, shape in LABELS]
SIZES = [(96, 96), (512, 341), (341, 512), (48, 48), (20, 33), (200, 50), (512, 64)]


@pytest.fixture(scope="module", autouse=True)
def _torch() -> None:
    """Imported by the one worker that runs this file: all of them collect it, and torch takes ten CPU seconds."""
    global torch, transformers, CLIPImageProcessorPil, CheckpointUnusable, Clip, TextTooLong, PreprocessingUnknown
    import torch
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from scanner.models.clip import CheckpointUnusable, Clip, TextTooLong
    from scanner.models.pixels import PreprocessingUnknown


def pictures() -> list[Image.Image]:
    """Pictures of several sizes and proportions, up to 8:1."""
    return [
        draw_shape(*LABELS[(5 * number) % len(LABELS)], number, width=width, height=height)
        for number, (width, height) in enumerate(SIZES)
    ]


def vectors_of(model: Clip, images: Sequence[Image.Image]) -> np.ndarray:
    return model.embed([model.prepare(image) for image in images])


def reference_similarities(folder: Path, images: Sequence[Image.Image], texts: Sequence[str]) -> np.ndarray:
    """Cosines from transformers alone: its own processor, both towers in one model, fp32."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = {"padding": True}
    if model.config.model_type == "siglip":
        padding = {"padding": "max_length", "max_length": model.config.text_config.max_position_embeddings}
    with torch.inference_mode():
        found = model(
            pixel_values=processor(images=list(images), return_tensors="pt").pixel_values,
            **tokenizer(list(texts), return_tensors="pt", **padding),
        )
    image = torch.nn.functional.normalize(found.image_embeds, dim=-1)
    text = torch.nn.functional.normalize(found.text_embeds, dim=-1)
    return (image @ text.T).numpy()


def test_similarities_are_those_of_transformers_own_model() -> None:
    ours = vectors_of(microclip(), pictures()) @ microclip().embed_texts(TEXTS).T
    theirs = reference_similarities(FOLDER, pictures(), TEXTS)
    assert ours == pytest.approx(theirs, abs=1e-3)
    assert theirs.max() - theirs.min() > 0.5  # they tell something apart


def test_similarities_give_what_transformers_zero_shot_pipeline_says() -> None:
    pipeline = transformers.pipeline(
        "zero-shot-image-classification",
        model=transformers.CLIPModel.from_pretrained(FOLDER),
        tokenizer=transformers.AutoTokenizer.from_pretrained(FOLDER),
        image_processor=CLIPImageProcessorPil.from_pretrained(FOLDER),
        device="cpu",
    )
    scale = pipeline.model.logit_scale.exp().item()
    texts = microclip().embed_texts(TEXTS)
    for image in pictures():
        said = {
            each["label"]: each["score"] for each in pipeline(image, candidate_labels=TEXTS, hypothesis_template="{}")
        }
        logits = scale * (vectors_of(microclip(), [image])[0] @ texts.T)
        ours = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert [said[text] for text in TEXTS] == pytest.approx(ours.tolist(), abs=1e-3)


def test_it_tells_new_coloured_shapes_apart() -> None:
    texts = microclip().embed_texts(TEXTS)
    right = 0
    for number, label in enumerate(LABELS):
        vectors = vectors_of(microclip(), [draw_shape(*label, seed) for seed in range(5000, 5010)])
        right += int(((vectors @ texts.T).argmax(axis=1) == number).sum())
    assert right >= 0.9 * 10 * len(LABELS)


def test_vectors_are_unit_vectors_and_the_same_alone_and_in_a_batch() -> None:
    together = vectors_of(microclip(), pictures())
    assert together.shape == (len(SIZES), microclip().dimensions)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)
    for image, vector in zip(pictures(), together, strict=True):
        assert vectors_of(microclip(), [image])[0] == pytest.approx(vector, abs=1e-5)


def test_resizing_on_the_device_comes_to_the_same() -> None:
    on_device = load_microclip(resize_on_device=True)
    assert on_device.id == microclip().id
    assert on_device.prepare(pictures()[1]).shape == (341, 512, 3)
    ours, theirs = vectors_of(on_device, pictures()), vectors_of(microclip(), pictures())
    assert (ours * theirs).sum(axis=1) == pytest.approx(1.0, abs=1e-3)


def test_half_precision_moves_similarities_by_thousandths() -> None:
    half = load_microclip(precision="bf16")
    texts = microclip().embed_texts(TEXTS)
    assert half.embed_texts(TEXTS) == pytest.approx(texts, abs=1e-6)  # texts are fp32 whatever the tower
    difference = vectors_of(half, pictures()) @ texts.T - vectors_of(microclip(), pictures()) @ texts.T
    assert 0.0 < np.abs(difference).max() < 0.03


def test_a_strip_of_one_pixel_costs_no_more_than_its_middle() -> None:
    for size in ((512, 1), (1, 512), (1, 1)):
        assert microclip().prepare(Image.new("RGB", size)).shape == (48, 48, 3)
        prepared = load_microclip(resize_on_device=True).prepare(Image.new("RGB", size))
        assert max(prepared.shape[:2]) <= 8


def test_it_is_an_embedder_and_holds_no_text_tower() -> None:
    assert is_embedder(microclip())
    assert not is_classifier(microclip())
    names = [name for name, _ in microclip()._tower.named_parameters()]
    assert names
    assert not [name for name in names if "text" in name or "token" in name]


def test_nothing_is_looked_for_on_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model = load_microclip()
    assert model.embed_texts(["a red triangle"]).shape == (1, model.dimensions)


def test_a_text_that_is_too_long_is_refused_not_cut() -> None:
    with pytest.raises(TextTooLong, match="model 'microclip' reads 24 tokens, and this text has 32"):
        microclip().embed_texts(["a red triangle", "red " * 30])


class _Starved:
    """A tower on a device with room for `room` pictures; torch raises this error where CUDA's memory ends."""

    def __init__(self, tower: Callable[..., object], room: int) -> None:
        self._tower = tower
        self._room = room
        self.batches: list[int] = []

    def __call__(self, *, pixel_values: torch.Tensor) -> object:
        self.batches.append(len(pixel_values))
        if len(pixel_values) > self._room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        return self._tower(pixel_values=pixel_values)


def test_where_memory_ends_the_batch_is_halved_and_stays_so() -> None:
    model = load_microclip()
    whole = vectors_of(model, pictures())
    starved = _Starved(model._tower, room=2)
    model._tower = starved
    assert vectors_of(model, pictures()) == pytest.approx(whole, abs=1e-5)
    assert starved.batches == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    starved.batches.clear()
    vectors_of(model, pictures()[:3])
    assert starved.batches == [1, 1, 1]


def test_without_room_for_one_picture_the_model_fails() -> None:
    model = load_microclip()
    model._tower = _Starved(model._tower, room=0)
    with pytest.raises(torch.OutOfMemoryError):
        vectors_of(model, pictures())


def test_a_gpu_that_is_not_there_is_named_with_the_remedy() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ModelError, match=r"cannot run on cuda:1: torch .* sees no CUDA device; .* use --device cpu"):
        load_microclip(device="cuda:1")
    assert load_microclip(device="auto").device == "cpu"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder `other` with microclip's files, for tests that change them."""
    shutil.copytree(FOLDER, tmp_path / "other")
    return tmp_path / "other"


def load_from(folder: Path) -> Clip:
    """Pin, register, verify and load what is in `folder` now."""
    registry = folder.parent / "registry.toml"
    registry.write_text(pin_checkpoint(folder, name=folder.name, licence="none", description="A test's."))
    entry = load_registry(registry).entry(folder.name)
    assert isinstance(entry, CheckpointEntry)
    return Clip(verify_checkpoint(entry, folder.parent), precision="fp32", threads=1)


def change(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_a_checkpoint_of_ones_own_is_another_model_with_another_id(copied: Path) -> None:
    same = load_from(copied)
    assert (same.name, same.id) == ("other", microclip().id)
    change(copied / "preprocessor_config.json", image_mean=[0.4, 0.5, 0.5])
    assert load_from(copied).id != microclip().id


def test_a_siglip_checkpoint_gives_transformers_own_similarities(copied: Path) -> None:
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = transformers.AutoTokenizer.from_pretrained(copied)
    config = transformers.SiglipConfig(
        text_config={
            **tower,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 16,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**tower, "image_size": 32, "patch_size": 8},
    )
    torch.manual_seed(7)
    transformers.SiglipModel(config).save_pretrained(copied)
    exact = {"height": 32, "width": 32}
    processor = {"image_processor_type": "SiglipImageProcessor", "size": exact, "do_center_crop": False}
    change(copied / "preprocessor_config.json", **processor)
    model = load_from(copied)
    ours = vectors_of(model, pictures()) @ model.embed_texts(TEXTS[:6]).T
    assert ours == pytest.approx(reference_similarities(copied, pictures(), TEXTS[:6]), abs=1e-3)


def test_a_checkpoint_of_another_kind_is_refused(copied: Path) -> None:
    transformers.Siglip2Config().save_pretrained(copied)
    with pytest.raises(CheckpointUnusable, match="of type 'siglip2'; this release runs clip and siglip"):
        load_from(copied)


def test_weights_that_do_not_fit_the_configuration_are_refused(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 5
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointUnusable, match="lacks 16 of the weights"):
        load_from(copied)


def test_files_that_are_broken_though_registered_are_refused(copied: Path) -> None:
    weights = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(weights[:-1000])
    with pytest.raises(CheckpointUnusable, match="cannot load its weights"):
        load_from(copied)
    (copied / "config.json").write_text("{")
    with pytest.raises(CheckpointUnusable, match=r"cannot load its config\.json"):
        load_from(copied)


def test_files_changed_while_they_are_loaded_are_noticed(copied: Path) -> None:
    model = load_from(copied)
    weights = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(weights)  # the same bytes, written after they were verified
    with pytest.raises(ModelDamaged, match="was changed while it was being loaded"):
        model.embed_texts(["a red triangle"])
    assert vectors_of(model, pictures()) == pytest.approx(vectors_of(microclip(), pictures()), abs=1e-5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"do_normalize": False}, "do_normalize = False"),
        ({"resample": 0}, "resample = 0"),
        ({"size": {"longest_edge": 64}}, "size = {'longest_edge': 64}"),
        ({"do_center_crop": False}, "do_center_crop = False"),
        ({"crop_size": {"height": 96, "width": 96}}, "crop_size = "),
        ({"image_mean": None}, "is not a preprocessor_config.json"),
    ],
)
def test_preprocessing_that_is_not_done_here_is_refused(copied: Path, changed: dict[str, object], said: str) -> None:
    change(copied / "preprocessor_config.json", **changed)
    with pytest.raises(PreprocessingUnknown, match=said):
        load_from(copied)


def test_preprocessing_to_another_size_than_the_towers_is_refused(copied: Path) -> None:
    change(copied / "preprocessor_config.json", size=96, crop_size=96)
    with pytest.raises(CheckpointUnusable, match="cannot load it so that a picture passes"):
        load_from(copied)


def test_sizes_as_the_first_clip_checkpoints_write_them_mean_the_same(copied: Path) -> None:
    change(copied / "preprocessor_config.json", size=48, crop_size=48)
    assert vectors_of(load_from(copied), pictures()) == pytest.approx(vectors_of(microclip(), pictures()), abs=1e-6)
