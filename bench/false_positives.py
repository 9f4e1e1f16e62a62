"""How often a policy flags pictures that it should not.

    python -m bench.false_positives FOLDER [--models-dir DIR] [--policy FILE]

FOLDER holds pictures that are all harmless; each is judged as one frame (at most 512 px, JPEG), as the pipeline does.
Prints a Markdown table of counts with exact (Clopper-Pearson) 95 % intervals, how the scores are spread, and every
picture that was flagged. An interval speaks about pictures drawn like these, and about nothing else.
"""

import argparse
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fediwarden.policies.intervals import clopper_pearson
from scanner.models.loading import load_models
from scanner.models.model import Model
from scanner.policy import Judgement, load_policy
from scanner.scoring import score_frames, score_labels
from schemas.messages import Decision

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models-dir", type=Path, default=default_models_dir())
    parser.add_argument("--models", nargs="+", default=["safety-s", "open-nsfw"])
    parser.add_argument("--policy", type=Path)
    arguments = parser.parse_args()
    models = load_models(arguments.models, arguments.models_dir)
    policy = load_policy(arguments.policy, score_labels(models))
    judged = {}
    for path in sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        judged[path] = policy.judge(scores_of(path, models))
    if not judged:
        print(f"no pictures in {arguments.folder}", file=sys.stderr)
        return 2
    print(f"policy {policy.name} ({policy.id}), " + ", ".join(f"{model.name} ({model.id})" for model in models))
    print("\n".join(table(list(judged.values()))))
    print("\n".join(flagged(arguments.folder, judged)))
    return 0


def default_models_dir() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "fediwarden" / "models"


def scores_of(path: Path, models: tuple[Model, ...]) -> list[dict[str, float]]:
    with Image.open(path) as picture:
        picture.draft("RGB", (1024, 1024))
        frame = ImageOps.exif_transpose(picture).convert("RGB")
    frame.thumbnail((512, 512))
    buffer = io.BytesIO()
    frame.save(buffer, "JPEG", quality=85)
    again = Image.open(buffer)
    again.load()
    return score_frames(models, [tuple(model.prepare(again) for model in models)])


def table(judgements: list[Judgement]) -> Iterator[str]:
    total = len(judgements)
    yield f"\n| of {total} pictures | count | rate | 95 % interval |\n|---|---|---|---|"
    rejected = sum(judgement.decision is Decision.REJECT for judgement in judgements)
    review = sum(judgement.decision is Decision.REVIEW for judgement in judgements)
    rows = {"rejected": rejected, "for review": review, "either": rejected + review}
    rules = [rule.name for judgement in judgements for rule in judgement.rules]
    rows |= {f"rule {name}": rules.count(name) for name in dict.fromkeys(rules)}
    for name, count in rows.items():
        low, high = clopper_pearson(count, total)
        yield f"| {name} | {count} | {count / total:.2%} | {low:.2%} to {high:.2%} |"
    yield "\n| score | median | 90 % | 99 % | highest |\n|---|---|---|---|---|"
    for label in judgements[0].scores:
        spread = np.quantile([judgement.scores[label] for judgement in judgements], [0.5, 0.9, 0.99, 1.0])
        yield f"| {label} | " + " | ".join(f"{value:.3f}" for value in spread) + " |"


def flagged(folder: Path, judged: dict[Path, Judgement]) -> Iterator[str]:
    for path, judgement in judged.items():
        if judgement.decision is not Decision.ACCEPT:
            scores = ", ".join(f"{label} {score:.3f}" for label, score in judgement.scores.items())
            rules = ", ".join(rule.name for rule in judgement.rules)
            yield f"{judgement.decision.value}: {path.relative_to(folder)} ({rules}; {scores})"


if __name__ == "__main__":
    sys.exit(main())
