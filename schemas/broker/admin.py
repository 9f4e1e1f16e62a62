"""Creating, comparing and checking the topics of `schemas.topics` on a cluster."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.broker.errors import TopicsNotReady, unavailable
from schemas.broker.settings import BrokerSettings
from schemas.topics import TOPICS, TopicSpec

_REQUEST_TIMEOUT_MS = 15_000
_START_TIMEOUT_S = 15.0
_EFFECT_WITHIN_S = 20.0
_REPLICAS = 3
_NEEDED_TO_SERVE = ("cleanup.policy", "max.message.bytes")


@dataclass(frozen=True, slots=True)
class TopicChange:
    """One difference between a declared topic and the cluster's. `setting` is "topic" where it is missing."""

    topic: str
    setting: str
    actual: str
    wanted: str

    @property
    def blocks(self) -> bool:
        """Whether a service must not start before this is mended."""
        if self.setting == "max.message.bytes":
            return int(self.actual) < int(self.wanted)
        return self.setting == "topic" or self.setting in _NEEDED_TO_SERVE

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting} is {self.actual}, wanted {self.wanted}"


async def diff_topics(settings: BrokerSettings, specs: Sequence[TopicSpec] = TOPICS) -> list[TopicChange]:
    """What differs between `specs` and the cluster. Raises `BrokerUnavailable` or `BrokerRefused`."""
    async with _admin(settings) as admin:
        return await _diff(admin, settings, specs)


async def apply_topics(settings: BrokerSettings, specs: Sequence[TopicSpec] = TOPICS) -> list[TopicChange]:
    """Create what is missing and alter what differs; partitions are only ever added. The changes that were made.

    Raises `BrokerUnavailable`, `BrokerRefused`, or `TopicsNotReady` where the cluster refuses a change.
    """
    async with _admin(settings) as admin:
        changes = await _diff(admin, settings, specs)
        if not changes:
            return []
        replicas, min_insync = await _replication(admin)
        by_name = {spec.full_name(settings.topic_prefix): spec for spec in specs}
        missing = [change.topic for change in changes if change.setting == "topic"]
        await _create(admin, {name: by_name[name] for name in missing}, replicas, min_insync)
        grown = {c.topic: NewPartitions(int(c.wanted)) for c in changes if c.setting == "partitions"}
        if grown:
            await admin.create_partitions(grown)
        altered = {c.topic for c in changes if c.setting not in ("topic", "partitions")}
        if altered:
            await _alter(admin, {name: by_name[name].config(min_insync=min_insync) for name in sorted(altered)})
        await _await_effect(admin, settings, specs)
        return changes


async def check_topics(settings: BrokerSettings, specs: Sequence[TopicSpec]) -> None:
    """Raises `TopicsNotReady` when a service could not work with the topics as they are; retention may differ."""
    faults = [str(change) for change in await diff_topics(settings, specs) if change.blocks]
    if faults:
        raise TopicsNotReady("; ".join(faults) + ". Run: fediwarden topics apply")


@asynccontextmanager
async def _admin(settings: BrokerSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    try:
        admin = AIOKafkaAdminClient(
            client_id="fediwarden-topics", request_timeout_ms=_REQUEST_TIMEOUT_MS, **settings.client_options()
        )
        async with asyncio.timeout(_START_TIMEOUT_S):
            await admin.start()
    except (kafka.KafkaError, OSError, TimeoutError, ValueError) as error:
        raise unavailable(settings.bootstrap_servers, error) from error
    try:
        yield admin
    except (kafka.KafkaError, OSError) as error:
        raise unavailable(settings.bootstrap_servers, error) from error
    finally:
        with contextlib.suppress(kafka.KafkaError, OSError):
            await admin.close()


async def _diff(admin: AIOKafkaAdminClient, settings: BrokerSettings, specs: Sequence[TopicSpec]) -> list[TopicChange]:
    _, min_insync = await _replication(admin)
    by_name = {spec.full_name(settings.topic_prefix): spec for spec in specs}
    there = set(await admin.list_topics())
    changes = [TopicChange(name, "topic", "missing", "present") for name in by_name if name not in there]
    present = [name for name in by_name if name in there]
    if not present:
        return changes
    for found in await admin.describe_topics(present):
        wanted = by_name[found["topic"]].partitions
        if len(found["partitions"]) < wanted:
            changes.append(TopicChange(found["topic"], "partitions", str(len(found["partitions"])), str(wanted)))
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in present]
    for response in await admin.describe_configs(resources):
        for _code, _message, _kind, name, entries in response.resources:
            actual = {entry[0]: entry[1] for entry in entries}
            for setting, value in by_name[name].config(min_insync=min_insync).items():
                if _normal(actual.get(setting)) != _normal(value):
                    changes.append(TopicChange(name, setting, str(actual.get(setting)), value))
    return changes


def _normal(value: str | None) -> str | None:
    return ",".join(sorted(value.split(","))) if value is not None and "," in value else value


async def _replication(admin: AIOKafkaAdminClient) -> tuple[int, int]:
    """Replicas of a new topic and how many must have a record: 3 and 2 where there are three brokers, else 1 and 1."""
    brokers = len((await admin.describe_cluster())["brokers"])
    return (_REPLICAS, _REPLICAS - 1) if brokers >= _REPLICAS else (1, 1)


async def _create(admin: AIOKafkaAdminClient, specs: dict[str, TopicSpec], replicas: int, min_insync: int) -> None:
    if not specs:
        return
    response = await admin.create_topics(
        [
            NewTopic(name, spec.partitions, replicas, topic_configs=spec.config(min_insync=min_insync))
            for name, spec in specs.items()
        ]
    )
    for name, code, *message in response.topic_errors:
        if code and not isinstance(kafka.for_code(code)(), kafka.TopicAlreadyExistsError):
            raise TopicsNotReady(f"Kafka refused to create {name}: {kafka.for_code(code).__name__} {message}")


async def _alter(admin: AIOKafkaAdminClient, configs: dict[str, dict[str, str]]) -> None:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, values) for name, values in configs.items()]
    for response in await admin.alter_configs(resources):
        for code, message, _kind, name in response.resources:
            if code:
                raise TopicsNotReady(f"Kafka refused to alter {name}: {kafka.for_code(code).__name__} {message}")


async def _await_effect(admin: AIOKafkaAdminClient, settings: BrokerSettings, specs: Sequence[TopicSpec]) -> None:
    """Wait until the brokers show the changes and every partition has a leader.

    Both reach the brokers a moment after the controller has answered; whoever is faster would see the old state.
    """
    names = [spec.full_name(settings.topic_prefix) for spec in specs]
    left: list[TopicChange] = []
    try:
        async with asyncio.timeout(_EFFECT_WITHIN_S):
            while True:
                left = await _diff(admin, settings, specs)
                if not left:
                    found = await admin.describe_topics(names)
                    if all(p["leader"] >= 0 for topic in found for p in topic["partitions"]):
                        return
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        faults = "; ".join(str(change) for change in left) or "partitions without a leader"
        raise TopicsNotReady(f"no effect after {_EFFECT_WITHIN_S:.0f} s: {faults}") from error
