"""How long a denial searches what was judged before: the enforcer reads all of `verdicts` and `answers` for it.

python -m bench.denials [--images 100000] [--folder DIR] [--port 24092]

An embedded Kafka is filled with a verdict and an answer for each invented image; then one denial by bytes and one by
look are searched for, by the enforcer's own code. Seconds are wall clock; CPU seconds are this process's.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import cast

from bench.audit_messages import invent
from fediwarden.kafka.cluster import Cluster
from fediwarden.kafka.jars import prepare_jars
from fediwarden.settings import load_settings
from gateway.enforcement.denials import Denials
from gateway.overrides.memory import Overrides
from schemas.broker import BrokerSettings, Consumer, Producer, Received, apply_topics
from schemas.clock import now_ms
from schemas.messages import AnswerGiven, OverrideEffect, OverrideKind, OverrideSet, Verdict
from schemas.topics import ANSWERS, OVERRIDES, VERDICTS

_AT_ONCE = 1_000
_YEAR_AND_A_MONTH_S = 396 * 86_400


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=100_000)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--port", type=int, default=24_092, help="of the embedded Kafka; the next one is used too")
    options = arguments.parse_args()
    settings = load_settings({})
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        Cluster(
            Path(folder) / "kafka",
            port=options.port,
            classpath=prepare_jars(settings.cache_dir, home=settings.kafka.home),
            heap_mb=settings.kafka.heap_mb,
        ) as cluster,
    ):
        asyncio.run(_measure(BrokerSettings(bootstrap_servers=cluster.bootstrap_servers), options.images))


async def _measure(broker: BrokerSettings, images: int) -> None:
    await apply_topics(broker)
    async with Producer(broker, client_id="bench") as producer:
        began = time.perf_counter()
        judged = await _fill(producer, images)
        print(f"{images} images' verdicts and answers published in {time.perf_counter() - began:.0f} s", flush=True)
        sought = judged[len(judged) // 2]
        await _search(broker, producer, images, "bytes", OverrideKind.SHA256, sought.sha256, 0)
        await _search(broker, producer, images, "look", OverrideKind.PDQ, sought.pdq[0], 31)


async def _fill(producer: Producer, images: int) -> list[Verdict]:
    """Publish; gives a thousandth of the verdicts."""
    kept: list[Verdict] = []
    waiting: list[asyncio.Task[object]] = []
    for topic, message in invent(images * 3, 1_000):
        if topic not in (VERDICTS, ANSWERS):
            continue
        assert isinstance(message, Verdict | AnswerGiven)
        if isinstance(message, Verdict) and int.from_bytes(message.sha256[:2], "big") % 1_000 == 0:
            kept.append(message)
        waiting.append(asyncio.create_task(producer.publish(topic, message, key=message.sha256)))
        if len(waiting) == _AT_ONCE:
            await asyncio.gather(*waiting)
            waiting.clear()
    await asyncio.gather(*waiting)
    return kept


async def _search(
    broker: BrokerSettings, producer: Producer, images: int, by: str, kind: OverrideKind, value: bytes, distance: int
) -> None:
    denial = OverrideSet(
        effect=OverrideEffect.DENY,
        kind=kind,
        hash=value,
        distance=distance,
        set_by="bench",
        reason="to be searched for",
        set_at=now_ms(),
    )
    record = Received(OVERRIDES, 0, 0, now_ms(), denial.override_id.encode(), denial, None, 1, 1)
    denials = Denials(broker, producer, consumer=cast(Consumer, None), overrides=Overrides(), name="bench")
    began, began_cpu = time.perf_counter(), time.process_time()
    found = await denials._find([record])
    took, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    records = 2 * images
    hours = 2 * _YEAR_AND_A_MONTH_S / (records / took) / 3_600
    print(
        f"by {by}: {len(found)} found among {records} records in {took:.1f} s, {cpu:.1f} s of CPU:"
        f" {records / took:.0f} records/s; 13 months at one image a second would take {hours:.1f} h",
        flush=True,
    )


if __name__ == "__main__":
    main()
