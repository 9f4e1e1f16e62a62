"""Who may do what on a cluster with ACLs: giving rights to users, taking them away, reading them.

A user is Kafka's principal ``User:<name>``; everybody is the user ``*``. Which rights our processes need is not known
here (`fediwarden.access.roles`). All of it takes Kafka's Alter and Describe on the cluster, which super users have.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest

from schemas.broker.admin import open_admin
from schemas.broker.errors import AccessRefused
from schemas.broker.settings import BrokerSettings

EVERYBODY = "*"

_ANY = 1
_LITERAL, _PREFIXED = 3, 4
_ALLOW = 3
_KINDS = {2: "topic", 3: "group", 4: "cluster", 5: "transactional id", 6: "delegation token", 7: "user"}
_OPERATIONS = {
    2: "All",
    3: "Read",
    4: "Write",
    5: "Create",
    6: "Delete",
    7: "Alter",
    8: "Describe",
    9: "ClusterAction",
    10: "DescribeConfigs",
    11: "AlterConfigs",
    12: "IdempotentWrite",
    13: "CreateTokens",
    14: "DescribeTokens",
    15: "TwoPhaseCommit",
}
_KIND_CODES = {name: code for code, name in _KINDS.items()}
_OPERATION_CODES = {name: code for code, name in _OPERATIONS.items()}
_PRINCIPAL = "User:"
_EFFECT_WITHIN_S = 15.0


class Right(NamedTuple):
    """One operation allowed on one resource, or on all whose names begin with `name` (`prefixed`).

    `kind` and `operation` are Kafka's words, `name` is the full name on the cluster, `host` the only address that the
    user may come from (``*``: any).
    """

    kind: str
    name: str
    operation: str
    prefixed: bool = False
    host: str = "*"

    def __str__(self) -> str:
        where = "" if self.host == "*" else f" from {self.host}"
        return f"{self.operation} on {self.kind} {self.name}{'*' if self.prefixed else ''}{where}"


async def read_rights(settings: BrokerSettings) -> dict[str, frozenset[Right]]:
    """What is allowed on the cluster, by user.

    Raises `AccessRefused` where the cluster has no authorizer, `BrokerUnavailable`, or `BrokerRefused`.
    """
    async with open_admin(settings) as admin:
        return await _read(admin, None)


async def set_rights(
    settings: BrokerSettings, user: str, wanted: Iterable[Right]
) -> tuple[frozenset[Right], frozenset[Right]]:
    """Make `wanted` all that is allowed to `user` by name, and wait until the broker goes by it. What it gave and took.

    What is denied to the user stays denied. Raises as `read_rights`.
    """
    goal = frozenset(wanted)
    async with open_admin(settings) as admin:
        has = (await _read(admin, user)).get(user, frozenset())
        given, taken = goal - has, has - goal
        for right in sorted(given):
            await _create(admin, user, right)
        for right in sorted(taken):
            await _delete(admin, user, right)
        await _await_effect(admin, user, goal)
    return given, taken


async def _read(admin: AIOKafkaAdminClient, user: str | None) -> dict[str, frozenset[Right]]:
    principal = None if user is None else _PRINCIPAL + user
    response = await admin._send_request(DescribeAclsRequest(_ANY, None, _ANY, principal, None, _ANY, _ALLOW))
    _raise(response.error_code, response.error_message)
    found: dict[str, set[Right]] = defaultdict(set)
    for kind, name, pattern, entries in response.resources:
        for holder, host, operation, _permission in entries:
            right = Right(
                _KINDS.get(kind, f"kind {kind}"),
                name,
                _OPERATIONS.get(operation, f"operation {operation}"),
                pattern == _PREFIXED,
                host,
            )
            found[holder.removeprefix(_PRINCIPAL)].add(right)
    return {holder: frozenset(rights) for holder, rights in found.items()}


async def _create(admin: AIOKafkaAdminClient, user: str, right: Right) -> None:
    response = await admin._send_request(CreateAclsRequest(*_encode(user, right)))
    for code, message in response.creation_responses:
        _raise(code, message)


async def _delete(admin: AIOKafkaAdminClient, user: str, right: Right) -> None:
    response = await admin._send_request(DeleteAclsRequest(*_encode(user, right)))
    for code, message, deleted in response.filter_responses:
        _raise(code, message)
        for entry in deleted:
            _raise(entry[0], entry[1])


def _encode(user: str, right: Right) -> tuple[int, str, int, str, str, int, int]:
    return (
        _KIND_CODES[right.kind],
        right.name,
        _PREFIXED if right.prefixed else _LITERAL,
        _PRINCIPAL + user,
        right.host,
        _OPERATION_CODES[right.operation],
        _ALLOW,
    )


async def _await_effect(admin: AIOKafkaAdminClient, user: str, goal: frozenset[Right]) -> None:
    """Wait for a broker to have heard of what the controller has written: a moment, as a rule."""
    try:
        async with asyncio.timeout(_EFFECT_WITHIN_S):
            while True:
                if (await _read(admin, user)).get(user, frozenset()) == goal:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise AccessRefused(
            f"the rights of {user} are written and without effect after {_EFFECT_WITHIN_S:.0f} s: is somebody else"
            " changing them?"
        ) from error


def _raise(code: int, message: str | None) -> None:
    if not code:
        return
    error = kafka.for_code(code)
    if error is kafka.SecurityDisabled:
        raise AccessRefused(
            "this Kafka has no authorizer: everybody who reaches it may do everything, whatever users there are. Set"
            " authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer (docs/home-scanner.md); the"
            " embedded Kafka of `fediwarden up` has none"
        )
    if error is kafka.ClusterAuthorizationFailedError:
        raise error("rights and users are changed by a super user of the cluster (super.users) alone")
    raise AccessRefused(f"Kafka refuses: {error.__name__} {message or ''}".rstrip())
