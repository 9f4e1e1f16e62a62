"""What each of our processes may do on a Kafka with ACLs, derived from who writes and reads which topic.

`schemas.topics` says that; only what no topic has stands here: the consumer groups, and what a scanner at home, or
a shadow, is not trusted with. Read, Write and Delete include Describe; all of ours ask for a topic's settings before
they begin.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fediwarden.settings import Settings
from gateway.enforcement.service import DENIALS_SUFFIX, DRY_RUN_SUFFIX
from scanner.settings import SHADOW_SUFFIX
from schemas.broker import Right
from schemas.messages import RESCAN_GROUPS
from schemas.topics import (
    FEATURES,
    IMAGES_ARCHIVE,
    IMAGES_BACKLOG,
    IMAGES_DEAD,
    MODELS_PROMOTED,
    RESCAN_JOBS,
    RESCANS,
    SCANNERS,
    TOPICS,
    VERDICTS,
    VERDICTS_SHADOW,
    TopicSpec,
)

COMMANDS = "fediwarden"
"""What the table of topics calls the commands that a person calls."""


@dataclass(frozen=True, slots=True)
class GroupRight:
    """`operation` on the consumer group `name` (without the prefix), or on those that begin so."""

    name: str
    operation: str = "Read"
    prefixed: bool = False


@dataclass(frozen=True, slots=True)
class Role:
    """What one kind of process may do. `process` is its name in the table of topics."""

    name: str
    process: str
    purpose: str
    groups: Callable[[Settings], tuple[GroupRight, ...]] = lambda _settings: ()
    never_reads: tuple[TopicSpec, ...] = ()
    never_writes: tuple[TopicSpec, ...] = ()
    on_every_topic: tuple[str, ...] = ()


def rights_of(role: Role, settings: Settings) -> frozenset[Right]:
    """The rights that `role` needs, with the names that `settings` give to topics and groups, and no other."""
    prefix = settings.kafka.topic_prefix
    rights = {
        Right("topic", topic.full_name(prefix), operation)
        for topic in TOPICS
        for operation in _operations(role, topic, settings)
    }
    rights |= {Right("topic", prefix, operation, prefixed=True) for operation in role.on_every_topic}
    rights |= {Right("group", prefix + each.name, each.operation, each.prefixed) for each in role.groups(settings)}
    return frozenset(rights)


def find_roles(rights: frozenset[Right], settings: Settings) -> list[str]:
    """The names of the roles whose rights are exactly `rights`."""
    return [role.name for role in ROLES.values() if rights_of(role, settings) == rights]


def _operations(role: Role, topic: TopicSpec, settings: Settings) -> Iterator[str]:
    reads = role.process in topic.readers and topic not in role.never_reads
    if topic is IMAGES_ARCHIVE and role.process == "audit" and not settings.audit.viewing.enabled:
        reads = False  # it is read for its pictures alone
    writes = role.process in topic.writers and topic not in role.never_writes
    erases = role.process in topic.erasers
    if reads or erases:
        yield "Read"
    if writes or erases:
        yield "Write"
    if erases:
        yield "Delete"
    if reads or writes or erases:
        yield "DescribeConfigs"


def _scanner_groups(settings: Settings) -> tuple[str, str]:
    return settings.scanner.group, settings.scanner.group + SHADOW_SUFFIX


def _groups_of_scanner(settings: Settings) -> tuple[GroupRight, ...]:
    return *map(GroupRight, _scanner_groups(settings)), GroupRight(RESCAN_GROUPS, prefixed=True)


def _groups_of_enforcer(settings: Settings) -> tuple[GroupRight, ...]:
    live, rehearsed = settings.enforcer.group, settings.enforcer.group + DRY_RUN_SUFFIX
    own = (live, live + DENIALS_SUFFIX, rehearsed, rehearsed + DENIALS_SUFFIX)
    waited_for = dict.fromkeys((*_scanner_groups(settings), *settings.erasure.groups))
    return *map(GroupRight, own), *(GroupRight(name, "Describe") for name in waited_for)


_ALL = (
    Role("gateway", "gateway", "fediwarden gateway"),
    Role("scanner", "scanner", "fediwarden scanner, on a machine that you trust as the server", _groups_of_scanner),
    Role(
        "home-scanner",
        "scanner",
        "fediwarden scanner at home: judges what waits, and reads nothing that is kept",
        lambda settings: (GroupRight(settings.scanner.group),),
        never_reads=(IMAGES_ARCHIVE, RESCAN_JOBS),
        never_writes=(RESCANS, VERDICTS_SHADOW),
    ),
    Role(
        "shadow",
        "scanner",
        "fediwarden scanner --shadow: sees what waits as well, and decides nothing",
        lambda settings: (GroupRight(settings.scanner.group + SHADOW_SUFFIX),),
        never_reads=(IMAGES_ARCHIVE, RESCAN_JOBS, MODELS_PROMOTED, SCANNERS),
        never_writes=(IMAGES_BACKLOG, IMAGES_ARCHIVE, VERDICTS, FEATURES, IMAGES_DEAD, RESCANS),
    ),
    Role("enforcer", "enforcer", "fediwarden enforcer", _groups_of_enforcer),
    Role("relay", "relay", "fediwarden relay"),
    Role("lemmy", "lemmy", "fediwarden lemmy", lambda settings: (GroupRight(settings.lemmy.group),)),
    Role(
        "audit",
        "audit",
        "fediwarden audit and audit record",
        lambda _settings: (GroupRight(RESCAN_GROUPS, "Describe", prefixed=True),),
    ),
    Role(
        "admin",
        COMMANDS,
        "commands that a person calls, topics apply included; no users, no certificates",
        lambda settings: (
            GroupRight(RESCAN_GROUPS, prefixed=True),
            *(GroupRight(name, "Describe") for name in _scanner_groups(settings)),
        ),
        on_every_topic=("Create", "Alter", "AlterConfigs", "Describe", "DescribeConfigs"),
    ),
)

ROLES = {role.name: role for role in _ALL}
"""Every role, by its name."""
