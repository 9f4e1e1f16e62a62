"""Trains microclip: a real CLIPModel with its tokenizer, small enough for the tree, that tells coloured shapes apart.

    python -m tests.microclip.train          # some minutes on 2 cores; prints the zero-shot accuracy

Writes the checkpoint to tests/data/microclip, as `save_pretrained` does. The same seed on the same versions of torch
and transformers gives the same weights; other versions or processors give others that do as well, so the files are
committed, and with them tests/data/microclip.toml, which names their SHA-256.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from scanner.models.pinning import pin_checkpoint
from tests.microclip.shapes import COLOURS, LABELS, draw_shape

FOLDER = Path(__file__).parents[1] / "data" / "microclip"
SEED = 20261128
SIDE = 48
PATCH = 8
WIDTH = 64
TEMPLATES = ("a photo of a {}", "a picture of a {}", "a {}", "{}", "an image of a {} on a grey ground")
PARTIAL = ("something {}", "a {} thing", "a {} shape")
END_OF_WORD = "</w>"


def make_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer (byte-level BPE) whose merges are learnt from the captions."""
    sentences = [template.format(f"{colour} {shape}") for template in TEMPLATES for colour, shape in LABELS]
    sentences += [template.format(colour) for template in PARTIAL for colour in COLOURS]
    bpe = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=640, initial_alphabet=letters, end_of_word_suffix=END_OF_WORD, show_progress=False
    )
    bpe.train_from_iterator(sentences, trainer)
    learnt = _merges(bpe)
    tokens = [*letters, *(letter + END_OF_WORD for letter in letters), *("".join(pair) for pair in learnt)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=learnt)


def _merges(bpe: Tokenizer) -> list[tuple[str, str]]:
    merges = json.loads(bpe.to_str())["model"]["merges"]
    return [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in merges]


def make_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained CLIPModel of a third of a million parameters."""
    tower = {"hidden_size": WIDTH, "num_attention_heads": 4, "projection_dim": WIDTH}
    vision = {**tower, "intermediate_size": 3 * WIDTH, "num_hidden_layers": 4, "image_size": SIDE, "patch_size": PATCH}
    text = {
        **tower,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 24,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def train(model: CLIPModel, tokenizer: CLIPTokenizer, *, steps: int, batch: int, each: int) -> None:
    """Contrastive training on `each` pictures of every label, mirrored, moved and tinted anew each time."""
    drawn = [(colour, shape, 1_000_000 + seed) for seed in range(each) for colour, shape in LABELS]
    pictures = pixels_of(drawn)
    numbers = torch.arange(len(LABELS)).repeat(each)
    print(f"{len(drawn)} pictures drawn", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    random = np.random.default_rng(SEED)
    for step in range(steps):
        chosen = torch.from_numpy(random.choice(len(drawn), batch, replace=False))
        templates = random.choice(TEMPLATES, batch)
        captions = [t.format(" ".join(LABELS[n])) for t, n in zip(templates, numbers[chosen].tolist(), strict=True)]
        output = model(
            pixel_values=_varied(pictures[chosen], random), **tokenizer(captions, padding=True, return_tensors="pt")
        )
        # Two pictures of one label are both right for its captions.
        same = (numbers[chosen][:, None] == numbers[chosen][None, :]).float()
        target = same / same.sum(dim=1, keepdim=True)
        loss = functional.cross_entropy(output.logits_per_image, target)
        loss = (loss + functional.cross_entropy(output.logits_per_text, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)


def _varied(pixels: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """Mirror, move by up to 3 pixels and tint a batch, all of its pictures alike but for the tint."""
    if random.random() < 0.5:
        pixels = pixels.flip(3)
    down, right = random.integers(-3, 4, 2).tolist()
    tint = torch.from_numpy(random.normal(0.0, 0.04, (len(pixels), 3, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(random.normal(0.0, 0.02, tuple(pixels.shape)).astype(np.float32))
    return pixels.roll((down, right), (2, 3)) + tint + noise


def pixels_of(pictures: list[tuple[str, str, int]]) -> torch.Tensor:
    """Pictures as the checkpoint's preprocessor_config.json has them: shape [n, 3, SIDE, SIDE]."""
    drawn = [draw_shape(*picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for picture in pictures]
    stacked = np.stack([np.asarray(image) for image in drawn]).astype(np.float32) / 255.0
    return torch.from_numpy((stacked - 0.5) / 0.5).permute(0, 3, 1, 2)


@torch.inference_mode()
def accuracy(model: CLIPModel, tokenizer: CLIPTokenizer, *, each: int = 20) -> float:
    """Share of new pictures whose nearest caption of all 24 is their own."""
    captions = [f"a photo of a {colour} {shape}" for colour, shape in LABELS]
    right = total = 0
    for number, (colour, shape) in enumerate(LABELS):
        pixels = pixels_of([(colour, shape, seed) for seed in range(each)])
        found = model(pixel_values=pixels, **tokenizer(captions, padding=True, return_tensors="pt"))
        right += int((found.logits_per_image.argmax(dim=1) == number).sum())
        total += each
    return right / total


def main() -> None:
    """Train, print the accuracy, write the checkpoint and its registry."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--each", type=int, default=150)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(
        1
    )  # the same sums in the same order everywhere; and threads that wait for each other cost more
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    print(f"{sum(weights.numel() for weights in model.parameters()):,} parameters, {len(tokenizer)} tokens")
    train(model, tokenizer, steps=arguments.steps, batch=arguments.batch, each=arguments.each)
    model.eval()
    print(f"zero-shot, 24-way: {accuracy(model, tokenizer):.1%}")
    model.save_pretrained(arguments.folder)
    tokenizer.save_pretrained(arguments.folder)
    square = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size=square, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor.save_pretrained(arguments.folder)
    entry = pin_checkpoint(
        arguments.folder,
        name="microclip",
        licence="AGPL-3.0-or-later",
        description="A third of a million parameters that tell 24 coloured shapes apart: for tests.",
    )
    arguments.folder.with_suffix(".toml").write_text(entry)


if __name__ == "__main__":
    main()
