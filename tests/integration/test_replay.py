"""Policy, list and model change on a running system, and what was judged before is put right: against a set of images
that is known to flip, with a kill in each step.

Gateway, two scanners with microclip, the enforcer and a server with pict-rs's API run as in life, and 5,000 images come
in by pict-rs. `make test-long` runs it; it takes some minutes.
"""

import asyncio
import hashlib
import io
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from gateway.frames.frame import QUALITY_LEAST
from gateway.lists.definition import ListDefinition
from gateway.lists.hashes import HashSet
from gateway.lists.kinds import DISTANCE_MOST, HashKind
from gateway.lists.store import ListStore
from scanner.models.entries import CheckpointEntry
from scanner.models.pinning import pin_checkpoint
from scanner.models.registry import load_registry, verify_checkpoint
from scanner.policy import load_policy
from schemas.broker import BrokerSettings, Received, Tail
from schemas.messages import (
    Decision,
    Message,
    RescanJudged,
    RescanOrdered,
    RescanState,
    RescanTier,
    ScannerAnnounced,
    Stage,
    Verdict,
)
from schemas.topics import RESCAN_JOBS, RESCANS, SCANNERS, VERDICTS, TopicSpec
from tests.microclip.shapes import LABELS, draw_shape
from tests.models import DATA, MICROCLIP_REGISTRY
from tests.pict_rs import API_KEY, PictRsServer, running_pict_rs
from tests.processes import Pipeline, Process, wait_until
from tests.topics import read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.long, pytest.mark.timeout(1800)]

IMAGES = 5_000
SEEDS = 4
APPEARANCES = [(colour, shape, 7000 + seed) for colour, shape in LABELS for seed in range(SEEDS)]
ACCEPT, REVIEW, REJECT = Decision.ACCEPT, Decision.REVIEW, Decision.REJECT
LISTED = 20

HEAD = """
[policy]
name = "shapes"
models = ["microclip"]
"""
CONCEPT = """
[[concept]]
model = "microclip"
name = "{colour}-{shape}"
prompts = ["a photo of a {colour} {shape}"]
"""
RULE = """
[[rule]]
name = "{colour}-{shape}"
says = "It looks like a {colour} {shape}."
decision = "{decision}"
when = {{ score = "microclip/{colour}-{shape}", at_least = 0.82 }}
"""

Label = tuple[str, str]
RED_TRIANGLE, WHITE_CIRCLE, BLUE_STAR = ("red", "triangle"), ("white", "circle"), ("blue", "star")
BLUE_TRIANGLE = ("blue", "triangle")


def policy(decisions: dict[Label, Decision]) -> str:
    concepts = "".join(CONCEPT.format(colour=colour, shape=shape) for colour, shape in decisions)
    rules = "".join(
        RULE.format(colour=colour, shape=shape, decision=decision.value)
        for (colour, shape), decision in decisions.items()
    )
    return HEAD + concepts + rules


FIRST = {RED_TRIANGLE: REJECT, WHITE_CIRCLE: REVIEW}
OTHER_DECISIONS = {RED_TRIANGLE: REVIEW, WHITE_CIRCLE: REJECT}
ONE_CONCEPT_MORE = {RED_TRIANGLE: REJECT, WHITE_CIRCLE: REJECT, BLUE_STAR: REJECT}


def appearance_of(number: int) -> tuple[str, str, int]:
    return APPEARANCES[number % len(APPEARANCES)]


def label_of(number: int) -> Label:
    colour, shape, _ = appearance_of(number)
    return colour, shape


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """JPEGs of some appearances; those of one differ in a comment alone."""
    drawn = {}
    for colour, shape, seed in APPEARANCES:
        buffer = io.BytesIO()
        draw_shape(colour, shape, seed, width=160, height=160).save(buffer, "JPEG", quality=90)
        drawn[colour, shape, seed] = buffer.getvalue()
    made = []
    for number in range(IMAGES):
        picture, comment = drawn[appearance_of(number)], b"image %d" % number
        made.append(picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:])
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The models and the policy of the scanners: their files are changed by the test."""
    shutil.copytree(DATA / "microclip", tmp_path / "models" / "microclip")
    shutil.copyfile(MICROCLIP_REGISTRY, tmp_path / "registry.toml")
    (tmp_path / "policy.toml").write_text(policy(FIRST))
    return tmp_path


def see_red_as_blue(folder: Path) -> None:
    """Change the model: its eyes take red for blue, and blue for red."""
    from safetensors.torch import load_file, save_file

    checkpoint = folder / "models" / "microclip"
    weights = load_file(checkpoint / "model.safetensors")
    first = "vision_model.embeddings.patch_embedding.weight"
    weights[first] = weights[first][:, [2, 1, 0]].contiguous()
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    text = pin_checkpoint(checkpoint, name="microclip", licence="AGPL-3.0-or-later", description="A test's.")
    (folder / "registry.toml").write_text(text)


def what_is_seen(folder: Path, at_least: Sequence[tuple[Label, float]]) -> dict[tuple[str, str, int], bool]:
    """Whether the model alone, asked beside all that runs, takes an appearance for any of some labels."""
    from scanner.models.clip import Clip

    entry = load_registry(folder / "registry.toml").entry("microclip")
    assert isinstance(entry, CheckpointEntry)
    model = Clip(verify_checkpoint(entry, folder / "models"), precision="fp32", threads=1)
    texts = model.embed_texts([f"a photo of a {colour} {shape}" for (colour, shape), _ in at_least])
    pictures = [draw_shape(*each, width=160, height=160) for each in APPEARANCES]
    scores = model.embed([model.prepare(picture) for picture in pictures]) @ texts.T - [least for _, least in at_least]
    assert abs(scores).min() > 0.01, "some picture is neither: a JPEG of it may go either way"
    return dict(zip(APPEARANCES, (scores > 0).any(axis=1).tolist(), strict=True))


class System:
    """What runs, and what has come of the images."""

    def __init__(self, kafka: BrokerSettings, folder: Path, pict_rs: PictRsServer, images: list[bytes]) -> None:
        self.kafka = kafka
        self.pict_rs = pict_rs
        self.shas = [hashlib.sha256(image).digest() for image in images]
        self.numbers = {sha: number for number, sha in enumerate(self.shas)}
        self.images = images
        self.folder = folder
        self.pipeline = Pipeline(
            kafka,
            folder,
            FEDIWARDEN_TENANTS__DEFAULT__PICT_RS=pict_rs.url,
            FEDIWARDEN_TENANTS__DEFAULT__PICT_RS_API_KEY=API_KEY,
            FEDIWARDEN_GATEWAY__DEADLINE_MS="30000",
            FEDIWARDEN_GATEWAY__LISTS__FOLDER=str(folder / "lists"),
            FEDIWARDEN_SCANNER__MODELS='["microclip"]',
            FEDIWARDEN_SCANNER__MODELS_DIR=str(folder / "models"),
            FEDIWARDEN_SCANNER__REGISTRY=str(folder / "registry.toml"),
            FEDIWARDEN_SCANNER__POLICY=str(folder / "policy.toml"),
            FEDIWARDEN_SCANNER__DEVICE="cpu",
            FEDIWARDEN_SCANNER__THREADS="1",
            FEDIWARDEN_SCANNER__SESSION_TIMEOUT_S="6",
        )

    def start_scanner(self) -> Process:
        process = self.pipeline.start("scanner")
        process.wait_for(lambda: "scanner_ready" in process.log, "ready")
        return process

    def upload(self) -> None:
        """Upload every image to pict-rs, a few at a time: it stores those that the gateway lets through."""

        def post(image: bytes) -> int:
            files = {"images[]": ("a.jpg", image, "image/jpeg")}
            return httpx.post(f"{self.pict_rs.url}/image", files=files, timeout=60).status_code

        with ThreadPoolExecutor(12) as pool:
            answers = Counter(pool.map(post, self.images))
        assert set(answers) == {201, 400}, answers

    def verdicts(self) -> list[Received]:
        return [each for each in read_topic(self.kafka, VERDICTS) if isinstance(each.message, Verdict)]

    def decisions(self) -> list[Decision | None]:
        """What stands of each image: its newest verdict."""
        found: dict[int, Decision] = {}
        for received in self.verdicts():
            assert isinstance(received.message, Verdict)
            found[self.numbers[received.message.sha256]] = received.message.decision
        return [found.get(number) for number in range(len(self.images))]

    def scans_of(self, numbers: set[int]) -> set[str]:
        """The ids of the scans of these images."""
        live = [each.message for each in self.verdicts() if isinstance(each.message, Verdict)]
        return {v.scan_id for v in live if v.stage is Stage.LIVE and self.numbers[v.sha256] in numbers}

    def change_policy(self, decisions: dict[Label, Decision]) -> None:
        """Give the scanners another policy, and wait until they go by it."""
        (self.folder / "policy.toml").write_text(policy(decisions))
        wanted = load_policy(self.folder / "policy.toml", (), ("microclip",)).id

        def is_in_force() -> bool:
            newest = {each.key: each.message for each in read_topic(self.kafka, SCANNERS)}
            return all(
                isinstance(said, ScannerAnnounced) and set(said.policies.values()) == {wanted}
                for said in newest.values()
            )

        wait_until(is_in_force, "in force", 60)

    def list_some(self, stands: list[Decision]) -> set[int]:
        """Put on a list what a picture looks like, and some files; the images that are on it and are not refused yet.

        Who looks alike is counted by hand, from the hashes in the verdicts.
        """
        looks = {}
        for received in self.verdicts():
            verdict = received.message
            assert isinstance(verdict, Verdict)
            if verdict.stage is Stage.LIVE and verdict.pdq_quality[0] >= QUALITY_LEAST:
                looks[self.numbers[verdict.sha256]] = int.from_bytes(verdict.pdq[0])
        fit = [number for number in looks if stands[number] is ACCEPT]
        seen = looks[min(fit)]
        files = [number for number in range(IMAGES) if stands[number] is ACCEPT and number not in looks][:LISTED]
        hashes = {HashKind.PDQ: [seen.to_bytes(32)], HashKind.SHA256: [self.shas[number] for number in files]}
        definition = ListDefinition(name="known", source="a test", reason="known elsewhere")
        ListStore(self.folder / "lists").save(definition, HashSet.of(hashes))
        alike = {number for number in fit if (looks[number] ^ seen).bit_count() <= DISTANCE_MOST}
        assert len(alike) > LISTED
        return alike | set(files)

    def stored(self) -> set[int]:
        """The images that pict-rs has."""
        return {self.numbers[bytes.fromhex(sha)] for sha in self.pict_rs.files.sha256s()}

    def job(self) -> RescanOrdered:
        """The rescan that was ordered last."""
        jobs = {each.key: each.message for each in read_topic(self.kafka, RESCAN_JOBS)}
        newest = max((job for job in jobs.values() if isinstance(job, RescanOrdered)), key=lambda job: job.ordered_at)
        return newest

    def run(self, *words: str, within_s: float = 300) -> str:
        """``fediwarden rescan ...`` to its good end; what it printed."""
        process = self.pipeline.start("rescan", *words)
        assert process.wait(within_s) == 0, process.log
        return process.log

    def rescan(self, tier: RescanTier, *words: str, victim: Process | None = None) -> RescanOrdered:
        """Judge again what there is, with a kill once something is judged: of `victim`, or of who ordered it."""
        ordered = self.pipeline.start("rescan", "--since", "2h", *words, "--dry-run")
        kill_at(self.kafka, RESCANS, lambda message: isinstance(message, RescanJudged), victim or ordered, by=ordered)
        if victim is None:
            self.run("resume", self.job().rescan)
        else:
            self.start_scanner()
            assert ordered.wait(600) == 0, ordered.log
        job = self.job()
        assert (job.state, job.tier) == (RescanState.FINISHED, tier), job.why
        return job

    def apply(self, job: RescanOrdered, removals: int) -> None:
        """Carry it out, with a kill when the first verdict is there."""

        def is_of_it(message: Message | None) -> bool:
            return isinstance(message, Verdict) and message.rescan == job.rescan

        applying = self.pipeline.start("rescan", "apply", job.rescan, "--yes", "--max-removals", str(removals))
        kill_at(self.kafka, VERDICTS, is_of_it, applying, by=applying)
        assert self.job().state is RescanState.APPLYING
        self.run("apply", job.rescan, "--yes")
        assert self.job().state is RescanState.APPLIED

    def expect(self, decisions: list[Decision], stored: set[int]) -> None:
        """Compare with what is known: what stands of each image, and what pict-rs has when the enforcer is done."""
        found = self.decisions()
        assert found == decisions, Counter(
            (label_of(number), is_, shall)
            for number, (is_, shall) in enumerate(zip(found, decisions, strict=True))
            if is_ is not shall
        )
        wait_until(lambda: self.stored() == stored, "removed, and nothing else", 240)


def kill_at(
    kafka: BrokerSettings,
    topic: TopicSpec,
    is_it: Callable[[Message | None], bool],
    victim: Process,
    *,
    by: Process,
) -> None:
    """Kill -9 `victim` when a message that `is_it` comes into `topic`, which `by` brings about."""

    async def wait() -> None:
        seen = asyncio.Event()

        def strike(received: Received) -> None:
            if is_it(received.message) and not seen.is_set():
                os.kill(victim.pid, signal.SIGKILL)
                seen.set()

        async with Tail(kafka, [topic], since_s=0.0, on_record=strike, client_id="test") as tail, asyncio.timeout(180):
            await tail.wait_positioned()
            while not seen.is_set():
                assert by.running, by.log
                await asyncio.sleep(0.01)

    asyncio.run(wait())
    victim.wait()


def test_what_a_new_policy_a_list_and_a_model_turn_is_exactly_what_is_known_to_turn(
    fresh_kafka: BrokerSettings, folder: Path, images: list[bytes]
) -> None:
    with running_pict_rs(folder / "pict-rs") as pict_rs:
        system = System(fresh_kafka, folder, pict_rs, images)
        with system.pipeline as pipeline:
            scanners = [system.start_scanner() for _ in range(2)]
            enforcer = pipeline.start("enforcer")
            _, url = pipeline.start_gateway()
            pict_rs.validation = f"{url}/api/v1/scan/IPADDR"
            system.upload()
            labels = [label_of(number) for number in range(IMAGES)]
            stands = [FIRST.get(label, ACCEPT) for label in labels]
            stored = {number for number, decision in enumerate(stands) if decision is not REJECT}
            system.expect(stands, stored)

            # Thresholds and decisions: from the scores that verdicts keep.
            system.change_policy(OTHER_DECISIONS)
            job = system.rescan(RescanTier.SCORES, "--policy", str(folder / "policy.toml"))
            stands = [OTHER_DECISIONS.get(label, ACCEPT) for label in labels]
            stored -= {number for number, label in enumerate(labels) if label == WHITE_CIRCLE}
            system.apply(job, labels.count(WHITE_CIRCLE))
            system.expect(stands, stored)

            # A concept that nobody has scored yet: from vectors.
            system.change_policy(ONE_CONCEPT_MORE)
            job = system.rescan(RescanTier.VECTORS, "--policy", str(folder / "policy.toml"))
            stands = [ONE_CONCEPT_MORE.get(label, ACCEPT) for label in labels]
            stored -= {number for number, label in enumerate(labels) if label == BLUE_STAR}
            removals = labels.count(BLUE_STAR) + labels.count(RED_TRIANGLE)
            refused = pipeline.start("rescan", "apply", job.rescan, "--yes")
            assert refused.wait() == 1
            assert f"{removals} of {IMAGES} images ({removals / IMAGES:.1%}) would be removed" in refused.log
            enforcer.kill()
            system.apply(job, removals)
            enforcer = pipeline.start("enforcer")
            system.expect(stands, stored)

            # A list: one appearance by its look, some images by their bytes.
            listed = system.list_some(stands)
            job = system.rescan(RescanTier.HASHES, "--lists")
            stands = [REJECT if number in listed else decision for number, decision in enumerate(stands)]
            stored -= listed
            system.apply(job, len(listed))
            system.expect(stands, stored)

            # A model: by running scanners, from the frames that are kept. Eyes that take blue for red refuse other
            # shapes; what is refused by now keeps its decision, as its frames are on their way out.
            see_red_as_blue(folder)
            seen = what_is_seen(folder, [(label, 0.82) for label in ONE_CONCEPT_MORE])
            for scanner in scanners:
                scanner.stop()
            scanners = [system.start_scanner() for _ in range(2)]
            turn = {n for n in range(IMAGES) if seen[appearance_of(n)] and stands[n] is ACCEPT}
            assert {n for n, label in enumerate(labels) if label == BLUE_TRIANGLE and stands[n] is ACCEPT} < turn
            job = system.rescan(RescanTier.FRAMES, "--model", "microclip", victim=scanners[0])
            system.apply(job, len(turn))
            before = stands
            stands = [REJECT if number in turn else decision for number, decision in enumerate(stands)]
            system.expect(stands, stored - turn)
            printed = system.run("report", job.rescan, "--json")
            report = json.loads(printed[printed.index("{") :])  # after a word on standard error
            assert {each["scan_id"] for each in report["flips"]} == system.scans_of(turn)

            # And back: decisions, not pictures.
            system.run("undo", job.rescan, "--yes")
            system.expect(before, stored - turn)
