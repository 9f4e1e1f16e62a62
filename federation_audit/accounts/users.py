"""Users: made, changed and removed, each with its entry in the log."""

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, inspect, select, update

from federation_audit.accounts.actions import Actor, record
from federation_audit.accounts.attempts import account_key
from federation_audit.accounts.database import Database
from federation_audit.accounts.errors import LastAdmin, NameRefused, UserUnknown
from federation_audit.accounts.passwords import Passwords, check_password
from federation_audit.accounts.roles import Role
from federation_audit.accounts.tables import ATTEMPTS, SESSIONS, USERS
from schemas.clock import now_ms

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with an account. Times are epoch milliseconds; `login_at` is None before the first login."""

    id: int
    name: str
    role: Role
    must_change: bool
    created_at: int
    password_at: int
    login_at: int | None


class Users:
    """The users of a database. Raises `AccountError`s; every change writes who made it into the log."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    def all(self) -> list[User]:
        """Everybody who may log in, by name."""
        with self._database.reading() as connection:
            return [as_user(row) for row in connection.execute(_present().order_by(USERS.c.name))]

    def find(self, name: str) -> User:
        """The user of this name. Raises `UserUnknown`."""
        with self._database.reading() as connection:
            return as_user(_row(connection, name))

    def add(self, name: str, role: Role, password: str, *, by: Actor, must_change: bool) -> User:
        """Make an account. `must_change` when somebody else knows the password.

        A name that was removed comes back as the same account: in the log it stands for one person for ever. Raises
        `NameRefused`, `PasswordRefused`.
        """
        name = check_name(name)
        check_password(password, name=name)
        hashed = self._passwords.hash(password)
        at = now_ms()
        values = {
            "role": role.value,
            "password_hash": hashed,
            "must_change": int(must_change),
            "password_at": at,
            "removed_at": None,
        }
        with self._database.writing() as connection:
            known = connection.execute(select(USERS.c.id, USERS.c.removed_at).where(USERS.c.name == name)).one_or_none()
            if known is None:
                connection.execute(insert(USERS).values(name=name, created_at=at, **values))
            elif known.removed_at is None:
                raise NameRefused(f"There is a user {name} already. Choose another name.")
            else:
                connection.execute(update(USERS).where(USERS.c.id == known.id).values(**values))
            detail = {"role": role.value} | ({"again": "yes"} if known is not None else {})
            record(connection, by, "user added", about=name, at=at, detail=detail)
            return as_user(_row(connection, name))

    def remove(self, name: str, *, by: Actor) -> None:
        """Take the account away and end its sessions. Raises `UserUnknown`, `LastAdmin`."""
        with self._database.writing() as connection:
            user = as_user(_row(connection, name))
            _keep_an_admin(connection, user)
            at = now_ms()
            gone = {"removed_at": at, "password_hash": "", "must_change": 1}
            connection.execute(update(USERS).where(USERS.c.id == user.id).values(**gone))
            connection.execute(delete(SESSIONS).where(SESSIONS.c.user_id == user.id))
            record(connection, by, "user removed", about=user.name, at=at, detail={"role": user.role.value})

    def set_role(self, name: str, role: Role, *, by: Actor) -> None:
        """Give the user another role, in force at once. Raises `UserUnknown`, `LastAdmin`."""
        with self._database.writing() as connection:
            user = as_user(_row(connection, name))
            if user.role is role:
                return
            _keep_an_admin(connection, user)
            connection.execute(update(USERS).where(USERS.c.id == user.id).values(role=role.value))
            detail = {"from": user.role.value, "to": role.value}
            record(connection, by, "role changed", about=user.name, at=now_ms(), detail=detail)

    def set_password(
        self, name: str, password: str, *, by: Actor, must_change: bool, keep_session: str | None = None
    ) -> None:
        """Set a password, end the user's sessions but `keep_session` (a token's hash), and forget failed attempts.

        Raises `UserUnknown`, `PasswordRefused`.
        """
        check_password(password, name=name)
        hashed = self._passwords.hash(password)
        with self._database.writing() as connection:
            user = as_user(_row(connection, name))
            at = now_ms()
            values = {"password_hash": hashed, "must_change": int(must_change), "password_at": at}
            connection.execute(update(USERS).where(USERS.c.id == user.id).values(**values))
            others = SESSIONS.c.token_hash != (keep_session or "")
            connection.execute(delete(SESSIONS).where(SESSIONS.c.user_id == user.id, others))
            connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.account == account_key(user.id, user.name)))
            what = "own password changed" if by.name == user.name else "password set"
            record(connection, by, what, about=user.name, at=at)


def is_anybody_there(connection: Connection) -> bool:
    """Whether there is an account. In a database that has no tables yet there is none."""
    if not inspect(connection).has_table(USERS.name):
        return False
    return connection.execute(_present().limit(1)).one_or_none() is not None


def check_name(name: str) -> str:
    """`name` without spaces around it. Raises `NameRefused`. Only ASCII: no two names look the same."""
    name = name.strip()
    if not is_name(name):
        raise NameRefused("A name has 1 to 64 of a-z, 0-9, '.', '_', '-', and starts with a letter or digit.")
    return name


def is_name(name: str) -> bool:
    """Whether somebody could be called so. What is no name is not looked for: PostgreSQL takes no NUL."""
    return _NAME.fullmatch(name) is not None


def as_user(row: Row[Any]) -> User:
    """A row of the table as a user."""
    return User(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        must_change=bool(row.must_change),
        created_at=row.created_at,
        password_at=row.password_at,
        login_at=row.login_at,
    )


def _present() -> Select[Any]:
    return select(USERS).where(USERS.c.removed_at.is_(None))


def _row(connection: Connection, name: str) -> Row[Any]:
    name = name.strip()
    row = connection.execute(_present().where(USERS.c.name == name)).one_or_none() if is_name(name) else None
    if row is None:
        raise UserUnknown(f"There is no user {name!r}. `fediwarden users list` names all.")
    return row


def _keep_an_admin(connection: Connection, user: User) -> None:
    if user.role is not Role.ADMIN:
        return
    # Locks the admins' rows, so that two admins do not remove each other at the same moment (SQLite has one writer).
    admins = select(USERS.c.id).where(USERS.c.role == Role.ADMIN.value, USERS.c.removed_at.is_(None))
    if len(connection.execute(admins.with_for_update()).all()) <= 1:
        raise LastAdmin(f"{user.name} is the only admin. Make another user an admin first.")
