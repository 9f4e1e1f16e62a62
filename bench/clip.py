"""A CLIP checkpoint, or the ONNX pair: the whole scanner on a real Kafka against a bare loop of the same models.

    python -m bench.clip microclip                         # tests/data/microclip
    python -m bench.clip vit-b-32                          # the shape of OpenAI's ViT-B/32, random weights
    python -m bench.clip onnx                              # safety-s and open-nsfw
    python -m bench.clip vit-l-14 --device cuda --curve    # on a GPU, with larger batches

Speed does not depend on what weights say: a shape with random ones stands for the checkpoint. The bare loop decodes
the gateway's JPEG frames, prepares them and runs the models, one batch after the other in one process, each batch size
in turn; the fastest counts. `tower` is the models alone, on one batch that is prepared already. The scanner has its
queue full from the start; its rate counts from its first verdict to its last, with Kafka, decryption, policy, feature
vectors, archive and commits, and with the reading of its verdicts, which happens in the same process. The bare loop
runs before and after the scanner, which is compared with the mean of the two. `cpu_ms` is the processor time of an
image (user and system, of this process): on a machine with other work it says more than the rates. Prints one line of
JSON.
"""

import argparse
import asyncio
import hashlib
import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from PIL import Image

from bench.pictures import make_pictures
from fediwarden.kafka.cluster import Cluster
from fediwarden.kafka.jars import prepare_jars
from fediwarden.logs import LogSettings, configure_logging
from fediwarden.settings import load_settings
from scanner.models.loading import load_models
from scanner.models.model import Model, is_embedder
from scanner.models.pinning import pin_checkpoint
from scanner.models.registry import fetch, load_registry
from scanner.policy import AtLeast, Policy, Rule
from scanner.scoring import embed_frames, score_frames, score_labels
from scanner.service import serve
from scanner.settings import ScannerSettings
from schemas.broker import BrokerSettings, Producer, Received, Tail, apply_topics
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import Decision, FrameInfo, ImageSubmitted, Verdict
from schemas.topics import IMAGES, VERDICTS

MICROCLIP = Path(__file__).parents[1] / "tests" / "data" / "microclip"
FRAME_SIDE, FRAME_QUALITY = 512, 80
PICTURES = 64
CONCEPTS = {f"concept-{number}": (f"a photo of {number} things",) for number in range(25)}
# width, layers, heads, patch of the vision tower; width of the text tower; length of a vector
SHAPES = {"vit-b-32": (768, 12, 12, 32, 512, 512), "vit-l-14": (1024, 24, 16, 14, 768, 768)}


def make_checkpoint(shape: str, folder: Path) -> None:
    """Write a CLIP checkpoint of this shape with random weights, and microclip's tokenizer."""
    import torch
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    width, layers, heads, patch, text_width, dimensions = SHAPES[shape]
    tokenizer = AutoTokenizer.from_pretrained(MICROCLIP)
    text = {"hidden_size": text_width, "intermediate_size": 4 * text_width, "num_attention_heads": text_width // 64}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "patch_size": patch}
    config = CLIPConfig(
        text_config={**text, **ends, "pad_token_id": tokenizer.eos_token_id, "vocab_size": len(tokenizer)},
        vision_config={**vision, "num_attention_heads": heads, "image_size": 224},
        projection_dim=dimensions,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    preprocessing = json.loads((MICROCLIP / "preprocessor_config.json").read_text())
    square = {"height": 224, "width": 224}
    preprocessing |= {"size": {"shortest_edge": 224}, "crop_size": square}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))


def settings_for(what: str, scratch: Path, device: str, precision: str, batch: int) -> ScannerSettings:
    """The scanner's settings for one of the choices, with the checkpoint made or fetched."""
    given: dict[str, Any] = {"device": device, "precision": precision, "batch": batch}
    if what == "onnx":
        directory = load_settings().models_dir
        fetch(load_registry(), ("safety-s", "open-nsfw"), directory)
        return ScannerSettings(models_dir=directory, **given)
    folder = MICROCLIP if what == "microclip" else scratch / what
    if what != "microclip":
        folder.mkdir()
        make_checkpoint(what, folder)
    registry = scratch / "registry.toml"
    registry.write_text(pin_checkpoint(folder, name=folder.name, licence="none", description="For bench.clip."))
    return ScannerSettings(models=(folder.name,), models_dir=folder.parent, registry=registry, **given)


def make_frames(count: int) -> list[bytes]:
    """Frames as the gateway makes them."""
    frames = []
    for jpeg in make_pictures(count):
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            image.draft("RGB", (FRAME_SIDE, FRAME_SIDE))
            image.thumbnail((FRAME_SIDE, FRAME_SIDE))
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "JPEG", quality=FRAME_QUALITY)
        frames.append(buffer.getvalue())
    return frames


def prepare(models: Sequence[Model], jpeg: bytes) -> tuple[Any, ...]:
    """One frame for every model."""
    image = Image.open(io.BytesIO(jpeg), formats=["JPEG"]).convert("RGB")
    return tuple(model.prepare(image) for model in models)


def run_models(models: Sequence[Model], prepared: list[tuple[Any, ...]]) -> None:
    """What the inference thread does with a batch."""
    score_frames(models, prepared, at_most=len(prepared))
    embed_frames(models, prepared, at_most=len(prepared))


def bare(models: Sequence[Model], frames: Sequence[bytes], batch: int, seconds: float) -> dict[str, float]:
    """Images a second of decoding, preparing and inferring in turn, and of the models alone; CPU of an image in ms."""
    count, inferring = 0, 0.0
    start, spent = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        prepared = [prepare(models, frames[(count + place) % len(frames)]) for place in range(batch)]
        began = time.perf_counter()
        run_models(models, prepared)
        inferring += time.perf_counter() - began
        count += batch
    cpu_ms = (time.process_time() - spent) / count * 1000.0
    return {"batch": batch, "rate": count / (time.perf_counter() - start), "tower": count / inferring, "cpu_ms": cpu_ms}


def fastest(models: Sequence[Model], frames: Sequence[bytes], batches: Sequence[int], seconds: float) -> dict[str, Any]:
    """The best of `bare` over batch sizes, and the curve."""
    for batch in batches:  # the first run of a size is slow
        run_models(models, [prepare(models, frames[0])] * batch)
    runs = [bare(models, frames, batch, seconds / len(batches)) for batch in batches]
    return {**max(runs, key=lambda run: run["rate"]), "curve": {run["batch"]: round(run["tower"], 1) for run in runs}}


def policy_for(models: Sequence[Model]) -> Policy:
    """A policy that asks for everything and never fires."""
    concepts = {model.name: CONCEPTS for model in models if is_embedder(model)}
    labels = [*score_labels(models), *(f"{model}/{concept}" for model in concepts for concept in CONCEPTS)]
    rules = tuple(Rule(label, "Never fires.", Decision.REVIEW, AtLeast(label, 1.1)) for label in labels)
    return Policy("bench-clip", "Accepts everything.", rules, concepts=concepts)


async def scanned_rate(
    broker: BrokerSettings, settings: ScannerSettings, models: Sequence[Model], frames: Sequence[bytes], count: int
) -> tuple[float, float]:
    """Verdicts a second of one scanner whose queue holds `count` images from the start, and CPU of an image in ms."""
    keyring, stop = Keyring.generate(), asyncio.Event()
    judged: list[tuple[float, float]] = []
    done = asyncio.Event()

    def note(received: Received) -> None:
        if isinstance(received.message, Verdict):
            judged.append((time.perf_counter(), time.process_time()))
            if len(judged) == count:
                done.set()

    async with Producer(broker, client_id="bench-clip") as producer:
        for start in range(0, count, 64):
            images = [submitted(keyring, number, frames) for number in range(start, min(start + 64, count))]
            await asyncio.gather(*(producer.publish(IMAGES, image, key=image.sha256) for image in images))
    async with Tail(broker, [VERDICTS], since_s=60.0, on_record=note, client_id="bench-clip") as tail:
        await tail.wait_positioned()
        serving = asyncio.create_task(serve(settings, broker, keyring, stop, models=models, policy=policy_for(models)))
        finished = asyncio.create_task(done.wait())
        await asyncio.wait((serving, finished), return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        finished.cancel()
        await serving
    took, spent = (last - first for first, last in zip(judged[0], judged[-1], strict=True))
    return (len(judged) - 1) / took, spent / (len(judged) - 1) * 1000.0


def submitted(keyring: Keyring, number: int, frames: Sequence[bytes]) -> ImageSubmitted:
    """One image of one frame, as the gateway publishes it."""
    jpeg = frames[number % len(frames)]
    sha256 = hashlib.sha256(f"bench {number}".encode()).digest()
    return ImageSubmitted(
        scan_id=f"bench-{number}",
        tenant="default",
        sha256=sha256,
        length=len(jpeg),
        media_type="image/jpeg",
        received_at=now_ms(),
        deadline_at=now_ms() + 3_600_000,
        frames=(FrameInfo(at_ms=0, width=512, height=512, pdq=bytes(32), pdq_quality=100),),
        sealed=keyring.seal([jpeg], sha256=sha256, tenant="default"),
    )


def one_at_a_time(models: Sequence[Model], frames: Sequence[bytes], count: int) -> float:
    """Median milliseconds from a JPEG frame to its scores, with nothing else going on."""
    times = []
    for number in range(count):
        began = time.perf_counter()
        run_models(models, [prepare(models, frames[number % len(frames)])])
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000.0


def device_name(models: Sequence[Model]) -> str:
    """The GPU's name, or the processor's."""
    if any(model.device != "cpu" for model in models):
        import torch

        return str(torch.cuda.get_device_name())
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Everything, as a table of results."""
    settings = settings_for(arguments.what, scratch, arguments.device, arguments.precision, arguments.batch)
    assert settings.models_dir is not None
    models = load_models(
        settings.models,
        settings.models_dir,
        registry=settings.registry,
        device=settings.device,
        precision=settings.precision,
    )
    frames = make_frames(PICTURES)
    largest = 256 if arguments.curve else 8
    batches = [2**power for power in range(largest.bit_length())]
    before = fastest(models, frames, batches, arguments.seconds / 2)
    kafka = load_settings({"data_dir": scratch})
    with Cluster(
        scratch / "kafka",
        port=arguments.kafka_port,
        classpath=prepare_jars(kafka.cache_dir),
        heap_mb=512,
        min_free_gb=0.5,
    ) as cluster:
        broker = BrokerSettings(bootstrap_servers=cluster.bootstrap_servers)
        asyncio.run(apply_topics(broker))
        count = max(64, int(arguments.seconds * before["rate"]))
        rate, cpu_ms = uvloop.run(scanned_rate(broker, settings, models, frames, count))
    after = fastest(models, frames, batches, arguments.seconds / 2)
    mean = (before["rate"] + after["rate"]) / 2
    return {
        "what": arguments.what,
        "device": device_name(models),
        "images": count,
        "scanner": round(rate, 2),
        "bare": [round(before["rate"], 2), round(after["rate"], 2)],
        "bare_batch": before["batch"],
        "share_of_bare": round(rate / mean, 3),
        "cpu_ms": round(cpu_ms, 2),
        "bare_cpu_ms": [round(before["cpu_ms"], 2), round(after["cpu_ms"], 2)],
        "tower": round(before["tower"], 2),
        "share_of_tower": round(rate / before["tower"], 3),
        "tower_by_batch": before["curve"],
        "single_p50_ms": round(one_at_a_time(models, frames, 30), 2),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("microclip", *SHAPES, "onnx"))
    parser.add_argument("--seconds", type=float, default=20.0, help="about how long the scanner and each bare loop run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch", type=int, default=0, help="the scanner's; 0 lets it find its own")
    parser.add_argument("--curve", action="store_true", help="batches up to 256 instead of 8")
    parser.add_argument("--kafka-port", type=int, default=14361, help="the next one is used as well")
    configure_logging(LogSettings(level="warning"), service="bench")
    with tempfile.TemporaryDirectory(prefix="fediwarden-bench-") as scratch:
        print(json.dumps(measure(parser.parse_args(), Path(scratch))))


if __name__ == "__main__":
    main()
