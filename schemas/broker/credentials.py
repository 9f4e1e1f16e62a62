"""Users that log in with a password (SCRAM-SHA-512), kept by the cluster itself.

aiokafka has no requests for this: the two that Kafka has (KIP-554) are spelled here on its protocol classes. What is
sent is the salted password, never the password; whoever reads that could still pass for the user, so use TLS, or a
network of the cluster's own.
"""

import asyncio
import hashlib
import secrets
from typing import Any

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from schemas.broker.admin import open_admin
from schemas.broker.errors import AccessRefused
from schemas.broker.settings import BrokerSettings

_SCRAM_SHA_512 = 2
_ITERATIONS = 4_096
"""The fewest that Kafka takes. More would slow down who guesses a password; ours are random, and cannot be guessed."""

_SALT_BYTES = 32
_NOT_FOUND = 91
_EFFECT_WITHIN_S = 15.0
_TEXT = CompactString("utf-8")


class _DescribeResponse(Response):  # type: ignore[misc]
    API_KEY = 50
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("error_message", _TEXT),
        (
            "results",
            CompactArray(
                ("user", _TEXT),
                ("error_code", Int16),
                ("error_message", _TEXT),
                ("credentials", CompactArray(("mechanism", Int8), ("iterations", Int32), ("tags", TaggedFields))),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _DescribeStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 50
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _DescribeResponse
    SCHEMA = Schema(
        ("users", CompactArray(("name", _TEXT), ("tags", TaggedFields))),
        ("tags", TaggedFields),
    )


class _Describe(Request[_DescribeStruct]):  # type: ignore[misc]
    """All users that have a password."""

    API_KEY = 50

    def build(self, request_struct_class: type[_DescribeStruct]) -> _DescribeStruct:
        return request_struct_class(None, {})


class _AlterResponse(Response):  # type: ignore[misc]
    API_KEY = 51
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "results",
            CompactArray(("user", _TEXT), ("error_code", Int16), ("error_message", _TEXT), ("tags", TaggedFields)),
        ),
        ("tags", TaggedFields),
    )


class _AlterStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 51
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _AlterResponse
    SCHEMA = Schema(
        ("deletions", CompactArray(("name", _TEXT), ("mechanism", Int8), ("tags", TaggedFields))),
        (
            "upsertions",
            CompactArray(
                ("name", _TEXT),
                ("mechanism", Int8),
                ("iterations", Int32),
                ("salt", CompactBytes),
                ("salted_password", CompactBytes),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )

    def __repr__(self) -> str:
        return "AlterUserScramCredentials(...)"  # aiokafka logs requests


class _Alter(Request[_AlterStruct]):  # type: ignore[misc]
    """One user's password set (`salted`: salt and salted password), or the user forgotten (None)."""

    API_KEY = 51

    def __init__(self, user: str, salted: tuple[bytes, bytes] | None) -> None:
        self._deletions: list[Any] = [(user, _SCRAM_SHA_512, {})] if salted is None else []
        self._upsertions: list[Any] = [(user, _SCRAM_SHA_512, _ITERATIONS, *salted, {})] if salted is not None else []

    def build(self, request_struct_class: type[_AlterStruct]) -> _AlterStruct:
        return request_struct_class(self._deletions, self._upsertions, {})


async def list_users(settings: BrokerSettings) -> frozenset[str]:
    """The users that log in with SCRAM-SHA-512. Raises `AccessRefused`, `BrokerUnavailable` or `BrokerRefused`."""
    async with open_admin(settings) as admin:
        return await _list(admin)


async def set_password(settings: BrokerSettings, user: str, password: str) -> None:
    """Let `user` log in with `password` from now on, and with no other; a new user has no rights.

    `password` must be random (192 bits, say) and ASCII (SASLprep is not done). Who is logged in stays so. Raises as
    `list_users`.
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    salted = await asyncio.to_thread(hashlib.pbkdf2_hmac, "sha512", password.encode("ascii"), salt, _ITERATIONS)
    async with open_admin(settings) as admin:
        await _alter(admin, _Alter(user, (salt, salted)))
        await _await_effect(admin, user, there=True)


async def remove_user(settings: BrokerSettings, user: str) -> bool:
    """Let `user` log in no more; whether there was one. Its rights stay (`set_rights`). Raises as `list_users`."""
    async with open_admin(settings) as admin:
        if user not in await _list(admin):
            return False
        await _alter(admin, _Alter(user, None))
        await _await_effect(admin, user, there=False)
        return True


async def _list(admin: AIOKafkaAdminClient) -> frozenset[str]:
    response = await admin._send_request(_Describe())
    _raise(response.error_code, response.error_message)
    return frozenset(
        user
        for user, code, _message, credentials, _tags in response.results
        if not code and any(mechanism == _SCRAM_SHA_512 for mechanism, _iterations, _tags in credentials)
    )


async def _alter(admin: AIOKafkaAdminClient, request: _Alter) -> None:
    response = await admin._send_request(request)
    for _user, code, message, _tags in response.results:
        if code != _NOT_FOUND:
            _raise(code, message)


async def _await_effect(admin: AIOKafkaAdminClient, user: str, *, there: bool) -> None:
    try:
        async with asyncio.timeout(_EFFECT_WITHIN_S):
            while True:
                if (user in await _list(admin)) is there:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise AccessRefused(f"the password of {user} is without effect after {_EFFECT_WITHIN_S:.0f} s") from error


def _raise(code: int, message: str | None) -> None:
    if not code:
        return
    error = kafka.for_code(code)
    if error is kafka.ClusterAuthorizationFailedError:
        raise error("rights and users are changed by a super user of the cluster (super.users) alone")
    raise AccessRefused(f"Kafka refuses: {error.__name__} {message or ''}".rstrip())
