"""The topic that images are replayed into: never one of ours."""

import re
from dataclasses import dataclass
from typing import Final

from fediwarden.replay.errors import TargetMissing, TargetRefused, TargetUnfit
from fediwarden.replay.records import ImageReplayed
from schemas.broker import BrokerSettings, apply_topics, diff_topics
from schemas.messages import ImageSubmitted
from schemas.topics import HOUR_MS, IMAGE_MAX_BYTES, IMAGES_ARCHIVE, TOPICS, TopicSpec

_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class Target:
    """A topic that is there, how the broker is to be talked to about it (its name has no prefix of ours), and how long
    it keeps what is in it: milliseconds, None for ever."""

    topic: TopicSpec
    broker: BrokerSettings
    kept_ms: int | None


def check_name(name: str, prefix: str) -> None:
    """Raises `TargetRefused` for what is no name of a topic, and for any of a fediwarden's, whatever its prefix."""
    if not _NAME.fullmatch(name) or name in (".", "..") or name.startswith("__"):
        raise TargetRefused(f"--to-topic: {name!r} is no name for a topic: write letters, digits, '.', '_' and '-'")
    declared = [spec.name for spec in TOPICS]
    under_ours = bool(prefix) and name.startswith(prefix)
    if under_ours or any(name in (each, prefix + each) or name.endswith(f".{each}") for each in declared):
        raise TargetRefused(
            f"--to-topic: {name} is fediwarden's own, or looks like it, and what is written there would be taken for"
            " ours: name another topic"
        )


async def open_target(broker: BrokerSettings, name: str, *, create: bool, retention_ms: int) -> Target:
    """The topic `name`; one that is missing is made where `create` says so, with `retention_ms`.

    One that is there is left as it is. Raises `TargetMissing`, `TargetUnfit`, or a `BrokerError`.
    """
    bare = broker.model_copy(update={"topic_prefix": ""})
    topic = TopicSpec(
        name,
        key=IMAGES_ARCHIVE.key,
        messages=(ImageSubmitted, ImageReplayed),
        writers=("fediwarden",),
        readers=("others",),
        partitions=IMAGES_ARCHIVE.partitions,
        retention_ms=retention_ms,
        segment_ms=min(HOUR_MS, retention_ms),
        max_message_bytes=IMAGE_MAX_BYTES,
    )
    changes = {change.setting: change for change in await diff_topics(bare, (topic,))}
    if "topic" in changes:
        if not create:
            raise TargetMissing(f"--to-topic: there is no topic {name}; make it, or say --create")
        await apply_topics(bare, (topic,))
        return Target(topic, bare, retention_ms)
    size = changes.get("max.message.bytes")
    if size is not None and int(size.actual) < IMAGE_MAX_BYTES:
        raise TargetUnfit(
            f"{name} takes records of {size.actual} bytes: set its max.message.bytes to {IMAGE_MAX_BYTES}"
        )
    kept = changes.get("retention.ms")
    kept_ms = retention_ms if kept is None else int(kept.actual)
    return Target(topic, bare, None if kept_ms < 0 else kept_ms)
