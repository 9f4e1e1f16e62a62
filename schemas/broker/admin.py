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
_EFFECT_WITHIN_S = 60.0
_PAUSES_S = 0.05, 0.4
_REPLICAS = 3
_NEEDED_TO_SERVE = ("cleanup.policy", "compression.type")
_OWN_TO_TOPIC = 1  # DescribeConfigs' source of a setting that was made for this topic: DYNAMIC_TOPIC_CONFIG


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
    async with open_admin(settings) as admin:
        return await _diff(admin, settings, specs)


async def apply_topics(settings: BrokerSettings, specs: Sequence[TopicSpec] = TOPICS) -> list[TopicChange]:
    """Create what is missing and alter what differs; partitions are only ever added. The changes that were made.

    Raises `BrokerUnavailable`, `BrokerRefused`, or `TopicsNotReady` where the cluster refuses a change.
    """
    async with open_admin(settings) as admin:
        changes = await _diff(admin, settings, specs)
        if not changes:
            return []
        by_name = {spec.full_name(settings.topic_prefix): spec for spec in specs}
        missing = [change.topic for change in changes if change.setting == "topic"]
        await _create(admin, {name: by_name[name] for name in missing})
        grown = {c.topic: NewPartitions(int(c.wanted)) for c in changes if c.setting == "partitions"}
        if grown:
            await admin.create_partitions(grown)
        altered: dict[str, dict[str, str]] = {}
        for change in changes:
            if change.setting not in ("topic", "partitions"):
                altered.setdefault(change.topic, {})[change.setting] = change.wanted
        if altered:
            # The AlterConfigs that aiokafka speaks replaces all of a topic's settings: those that stay are sent along.
            present = await read_configs(admin, list(altered))
            kept = {name: {entry.name: entry.value for entry in own if entry.own} for name, own in present.items()}
            await _alter(admin, {name: kept[name] | wanted for name, wanted in altered.items()})
        await _await_effect(admin, settings, specs)
        return changes


async def check_topics(settings: BrokerSettings, specs: Sequence[TopicSpec]) -> None:
    """Raises `TopicsNotReady` when a service could not work with the topics as they are; retention may differ."""
    faults = [str(change) for change in await diff_topics(settings, specs) if change.blocks]
    if faults:
        raise TopicsNotReady("; ".join(faults) + ". Run: fediwarden topics apply")


@asynccontextmanager
async def open_admin(settings: BrokerSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client; aiokafka's errors inside become `BrokerUnavailable` or `BrokerRefused`."""
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


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One setting of a topic; `own` says that it was made for this topic."""

    name: str
    value: str
    own: bool


async def _diff(admin: AIOKafkaAdminClient, settings: BrokerSettings, specs: Sequence[TopicSpec]) -> list[TopicChange]:
    by_name = {spec.full_name(settings.topic_prefix): spec for spec in specs}
    there = set(await admin.list_topics())
    changes = [TopicChange(name, "topic", "missing", "present") for name in by_name if name not in there]
    present = [name for name in by_name if name in there]
    if not present:
        return changes
    min_insync = {}
    for found in await admin.describe_topics(present):
        name, partitions = found["topic"], found["partitions"]
        # Of the replicas that the topic has, not of the brokers that are up now: an outage must not lower it.
        min_insync[name] = _min_insync(min((len(p["replicas"]) for p in partitions), default=1))
        if len(partitions) < by_name[name].partitions:
            changes.append(TopicChange(name, "partitions", str(len(partitions)), str(by_name[name].partitions)))
    configs = await read_configs(admin, present)
    # A broker may not have heard yet of a topic that another one names.
    changes += [TopicChange(name, "topic", "missing", "present") for name in present if name not in configs]
    for name, entries in configs.items():
        if not entries:
            raise kafka.TopicAuthorizationFailedError(f"the settings of {name} (right DescribeConfigs)")
        actual = {entry.name: entry.value for entry in entries}
        for setting, value in by_name[name].config(min_insync=min_insync.get(name, 1)).items():
            is_stricter = setting == "min.insync.replicas" and int(actual.get(setting, "0")) > int(value)
            if _normal(actual.get(setting)) != _normal(value) and not is_stricter:
                changes.append(TopicChange(name, setting, str(actual.get(setting)), value))
    return changes


async def read_configs(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, list[ConfigEntry]]:
    """The settings in force of the topics `names`, by full name: none of a topic that we may not ask about.

    Topics that the broker which was asked does not know, perhaps not yet, are left out. Raises aiokafka's errors.
    """
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found: dict[str, list[ConfigEntry]] = {}
    for response in await admin.describe_configs(resources):
        for code, message, _kind, name, entries in response.resources:
            error = kafka.for_code(code)
            if error is kafka.UnknownTopicOrPartitionError:
                continue
            if code and error is not kafka.TopicAuthorizationFailedError:
                raise error(f"the settings of {name}: {message}")
            found[name] = [ConfigEntry(entry[0], entry[1], own=entry[3] == _OWN_TO_TOPIC) for entry in entries]
    return found


def _normal(value: str | None) -> str | None:
    return ",".join(sorted(value.split(","))) if value is not None and "," in value else value


def _min_insync(replicas: int) -> int:
    """How many replicas must have a record before it counts as written: all but one, so that one may be away."""
    return max(1, replicas - 1)


async def _create(admin: AIOKafkaAdminClient, specs: dict[str, TopicSpec]) -> None:
    """Create topics with three replicas where there are three brokers, else with one."""
    if not specs:
        return
    brokers = len((await admin.describe_cluster())["brokers"])
    replicas = _REPLICAS if brokers >= _REPLICAS else 1
    response = await admin.create_topics(
        [
            NewTopic(name, spec.partitions, replicas, topic_configs=spec.config(min_insync=_min_insync(replicas)))
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
    pause_s = _PAUSES_S[0]
    try:
        async with asyncio.timeout(_EFFECT_WITHIN_S):
            while True:
                # A broker that makes topics is busy: it is asked for leaders alone, which is little, until there are.
                found = await admin.describe_topics(names)
                if all(topic["partitions"] and not topic["error_code"] for topic in found) and all(
                    p["leader"] >= 0 for topic in found for p in topic["partitions"]
                ):
                    left = await _diff(admin, settings, specs)
                    if not left:
                        return
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _PAUSES_S[1])
    except TimeoutError as error:
        faults = "; ".join(str(change) for change in left) or "partitions without a leader"
        raise TopicsNotReady(f"no effect after {_EFFECT_WITHIN_S:.0f} s: {faults}") from error
