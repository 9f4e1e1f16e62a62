"""Users of a Kafka with ACLs, one for each of our processes: a password, and the rights of a role and no other.

Rights are written before a password and taken away before it: what stops half-way leaves rights that nobody has, or a
user who may do nothing; calling again goes on from there.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from fediwarden.access.errors import UserRefused
from fediwarden.access.roles import Role, find_roles, rights_of
from fediwarden.settings import Settings
from schemas.broker import EVERYBODY, Right, list_users, read_rights, remove_user, set_password, set_rights

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PASSWORD_BYTES = 24


@dataclass(frozen=True, slots=True)
class User:
    """A user of the cluster. `roles` are those whose rights it has exactly; `logs_in` is whether it has a password.

    A user without a password may log in some other way (a certificate), and ``*`` is everybody.
    """

    name: str
    logs_in: bool
    roles: tuple[str, ...]
    rights: frozenset[Right]


def make_password() -> str:
    """A password that nobody guesses: 192 random bits, as letters, digits, ``-`` and ``_``."""
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def check_name(name: str) -> str:
    """`name`, if a user may be called so. Raises `UserRefused`."""
    if not _NAME.fullmatch(name):
        raise UserRefused(f"{name!r} will not do as a user's name: a-z, 0-9, '.', '_' and '-', 63 at most")
    return name


async def add_user(settings: Settings, name: str, role: Role, password: str) -> None:
    """Make the user `name`. Raises `UserRefused` where it is there already, or a `schemas.broker.BrokerError`."""
    broker = settings.kafka.broker_settings()
    if check_name(name) in await list_users(broker):
        raise UserRefused(
            f"there is a user {name} already: `fediwarden kafka users password {name}` gives it a new password,"
            f" `fediwarden kafka users grant {name} --role {role.name}` the rights of this role"
        )
    await set_rights(broker, name, rights_of(role, settings))
    await set_password(broker, name, password)


async def change_password(settings: Settings, name: str, password: str) -> None:
    """Give the user `name` another password; who is logged in stays so. Raises as `add_user`, where it is not there."""
    broker = settings.kafka.broker_settings()
    if name not in await list_users(broker):
        raise UserRefused(_missing(name))
    await set_password(broker, name, password)


async def grant_role(settings: Settings, name: str, role: Role) -> tuple[frozenset[Right], frozenset[Right]]:
    """Make the rights of `role` all that `name` has; those that it got and lost. Raises as `change_password`."""
    broker = settings.kafka.broker_settings()
    if name not in await list_users(broker):
        raise UserRefused(_missing(name))
    return await set_rights(broker, name, rights_of(role, settings))


async def drop_user(settings: Settings, name: str) -> int:
    """Take all rights from `name`, at once also in connections that are open, and then the password. How many rights.

    Raises `UserRefused` where there is neither, or a `schemas.broker.BrokerError`.
    """
    if name == EVERYBODY:
        raise UserRefused("the rights of everybody (*) are not ours to take: use Kafka's own kafka-acls.sh")
    broker = settings.kafka.broker_settings()
    _, taken = await set_rights(broker, name, ())
    if not await remove_user(broker, name) and not taken:
        raise UserRefused(_missing(name))
    return len(taken)


async def read_users(settings: Settings) -> list[User]:
    """Everybody who has a password or a right on the cluster, by name. Raises a `schemas.broker.BrokerError`."""
    broker = settings.kafka.broker_settings()
    rights: Mapping[str, frozenset[Right]] = await read_rights(broker)
    log_in = await list_users(broker)
    return [
        User(
            name,
            name in log_in,
            tuple(find_roles(rights.get(name, frozenset()), settings)),
            rights.get(name, frozenset()),
        )
        for name in sorted(log_in | rights.keys())
    ]


def _missing(name: str) -> str:
    return f"there is no user {name}; `fediwarden kafka users list` names those there are"
