"""Scanners in this process and in one of their own, what is sent to them, and what is seen of them."""

import asyncio
import contextlib
import hashlib
import io
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from PIL import Image

from scanner.policy import Policy, parse_policy
from scanner.service import LANES, serve
from scanner.settings import ScannerSettings
from schemas.broker import BrokerSettings, Producer, Received, Tail
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import (
    FrameInfo,
    ImageFailed,
    ImageSubmitted,
    Message,
    ScannerAnnounced,
    Verdict,
)
from schemas.topics import IMAGES, IMAGES_ARCHIVE, IMAGES_DEAD, SCANNERS, VERDICTS, TopicSpec
from tests.models import models_dir
from tests.unit.scanner.stub_models import RedModel

KEYRING = Keyring.generate()
OUTPUTS = (VERDICTS, IMAGES_ARCHIVE, IMAGES_DEAD, SCANNERS)
PATIENCE_S = 60.0
RED_POLICY = parse_policy(
    """
    [policy]
    name = "red"
    [[rule]]
    name = "very-red"
    says = "It is very red."
    decision = "reject"
    when = { score = "red/red", at_least = 0.9 }
    [[rule]]
    name = "rather-red"
    says = "It is rather red."
    decision = "review"
    when = { score = "red/red", at_least = 0.6 }
    """,
    ["red/red"],
    source="test",
)


class Observed:
    """Everything a scanner publishes, and a way to wait for it."""

    def __init__(self) -> None:
        self.records: list[Received] = []
        self._changed = asyncio.Event()

    def note(self, received: Received) -> None:
        self.records.append(received)
        self._changed.set()

    def messages(self, topic: TopicSpec) -> list[Message]:
        return [record.message for record in self.records if record.topic == topic and record.message]

    @property
    def verdicts(self) -> dict[str, Verdict]:
        return {message.scan_id: message for message in self.messages(VERDICTS) if isinstance(message, Verdict)}

    @property
    def failures(self) -> list[ImageFailed]:
        return [message for message in self.messages(IMAGES_DEAD) if isinstance(message, ImageFailed)]

    @property
    def announcements(self) -> list[ScannerAnnounced]:
        return [message for message in self.messages(SCANNERS) if isinstance(message, ScannerAnnounced)]

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def observing(
    broker: BrokerSettings, topics: Sequence[TopicSpec] = OUTPUTS
) -> AsyncIterator[tuple[Observed, Producer]]:
    observed = Observed()
    tail = Tail(broker, topics, since_s=3600.0, on_record=observed.note, client_id="test")
    async with Producer(broker, client_id="test") as producer, tail:
        await tail.wait_positioned()
        yield observed, producer


@contextlib.asynccontextmanager
async def scanning(
    broker: BrokerSettings,
    *,
    models: Sequence[RedModel] | None = None,
    policy: Policy | None = None,
    **settings: object,
) -> AsyncIterator[asyncio.Event]:
    """A scanner in this process; it is stopped at the end, and what it raises is raised here."""
    stop = asyncio.Event()
    if models is not None:
        policy = policy or RED_POLICY
    given = ScannerSettings.model_validate({"models_dir": models_dir(), "announce_s": 0.2, **settings})
    running = asyncio.create_task(serve(given, broker, KEYRING, stop, models=models, policy=policy))
    try:
        yield stop
    finally:
        stop.set()
        await running


PROCESS = """
import asyncio, os, sys, threading, time
from pathlib import Path
from scanner.service import run_scanner
from scanner.settings import ScannerSettings
from schemas.broker import BrokerSettings
from schemas.keyring import Keyring
from tests.scanners import RED_POLICY
from tests.unit.scanner.stub_models import RedModel, is_green

broker = BrokerSettings(bootstrap_servers=sys.argv[1], topic_prefix=sys.argv[2])
keyring = Keyring.load(Path(sys.argv[3]))
def hang_on_green(batch):
    time.sleep(float(os.environ.get("PAUSE_S", "0")) * len(batch))
    if "HANG_AT_ONCE" in os.environ or any(is_green(colour) for colour in batch):
        print("hanging", flush=True)
        threading.Event().wait()

settings = ScannerSettings(announce_s=0.2, {settings})

class Slow(RedModel):
    def prepare(self, image):
        if "HANG_IN_PREPARE" in os.environ and is_green(image.getpixel((0, 0))):
            threading.Event().wait()
        return super().prepare(image)

sys.exit(asyncio.run(run_scanner(settings, broker, keyring, models=[Slow(hang_on_green)], policy=RED_POLICY)))
"""


@contextlib.asynccontextmanager
async def scanner_process(
    broker: BrokerSettings, folder: Path, settings: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A scanner in a process of its own, with a model that hangs on a green picture."""
    KEYRING.save(folder / "keys.json")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROCESS.format(settings=settings),
        broker.bootstrap_servers,
        broker.topic_prefix,
        str(folder / "keys.json"),
        cwd=Path(__file__).parents[1],
        stdout=asyncio.subprocess.PIPE,
        limit=16 << 20,  # of what nobody reads
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def submitted(scan_id: str, *jpegs: bytes, keyring: Keyring = KEYRING, deadline_in_s: float = 3600.0) -> ImageSubmitted:
    sha256 = hashlib.sha256(scan_id.encode()).digest()
    frame = FrameInfo(at_ms=0, width=64, height=48, pdq=bytes(range(32)), pdq_quality=100)
    return ImageSubmitted(
        scan_id=scan_id,
        tenant="default",
        sha256=sha256,
        length=1234,
        media_type="image/jpeg",
        received_at=now_ms(),
        deadline_at=now_ms() + int(deadline_in_s * 1000),
        frames=(frame,) * len(jpegs),
        sealed=keyring.seal(jpegs, sha256=sha256, tenant="default"),
        gateway="test",
    )


async def submit(producer: Producer, *images: ImageSubmitted, topic: TopicSpec = IMAGES) -> None:
    for image in images:
        await producer.publish(topic, image, key=image.sha256)


async def uncommitted(broker: BrokerSettings, group: str = "fediwarden-scanner") -> int:
    """How many records of the scanner's lanes the group has not committed."""
    client = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, group_id=broker.topic_prefix + group, enable_auto_commit=False
    )
    await client.start()
    try:
        partitions = [
            TopicPartition(lane.full_name(broker.topic_prefix), number)
            for lane in LANES
            for number in range(lane.partitions)
        ]
        ends = await client.end_offsets(partitions)
        return sum([ends[partition] - (await client.committed(partition) or 0) for partition in partitions])
    finally:
        await client.stop()
