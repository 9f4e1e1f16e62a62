"""Sessions: who is logged in. The browser holds a random token, the database its hash.

Logging in is here too: it is what makes a session.
"""

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update
from sqlalchemy import insert as insert_into

from federation_audit.accounts.actions import Actor, record
from federation_audit.accounts.attempts import Attempts, account_key
from federation_audit.accounts.database import Database
from federation_audit.accounts.errors import PasswordWrong
from federation_audit.accounts.passwords import Passwords
from federation_audit.accounts.tables import SESSIONS, USERS
from federation_audit.accounts.users import User, as_user, is_name
from schemas.clock import now_ms

_TOKEN_BYTES = 32
_TOUCH_MS = 60_000
_SESSIONS_MOST = 20
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is logged in. `key` is the token's hash: enough to end the session, not to be it."""

    key: str
    user: User
    created_at: int


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session as its owner sees it in a list."""

    key: str
    network: str
    created_at: int
    seen_at: int


class Sessions:
    """The sessions of a database. One ends `idle_ms` after its last request, and `most_ms` after the login."""

    def __init__(self, database: Database, passwords: Passwords, *, idle_ms: int, most_ms: int) -> None:
        self._database = database
        self._passwords = passwords
        self._attempts = Attempts(database)
        self._idle_ms = idle_ms
        self._most_ms = most_ms

    def log_in(self, name: str, password: str, *, network: str) -> str:
        """The token of a new session. Raises `TooManyAttempts`, or `PasswordWrong` for whatever does not match.

        An unknown name takes as long as a wrong password, and reads the same.
        """
        name = name.strip()
        with self._database.reading() as connection:
            columns = (USERS.c.id, USERS.c.name, USERS.c.password_hash)
            present = select(*columns).where(USERS.c.name == name, USERS.c.removed_at.is_(None))
            known = connection.execute(present).one_or_none() if is_name(name) else None
        attempt = self._attempts.begin(account_key(known and known.id, name), network, now_ms())
        if not self._passwords.verify(known and known.password_hash, password) or known is None:
            self._record_failure(known and known.name, network, last=attempt.last)
            raise PasswordWrong("Name and password do not match.")
        self._attempts.forgive(attempt.id)
        # The password is at hand now and at no other time.
        rehashed = self._passwords.hash(password) if self._passwords.outdated(known.password_hash) else None
        token, at = secrets.token_urlsafe(_TOKEN_BYTES), now_ms()
        with self._database.writing() as connection:
            self._drop_old(connection, known.id, at)
            values: dict[str, object] = {"login_at": at} | ({"password_hash": rehashed} if rehashed else {})
            # The hash that was verified: a password that was changed in the meantime lets nobody in.
            same = (USERS.c.id == known.id, USERS.c.password_hash == known.password_hash)
            if connection.execute(update(USERS).where(*same).values(**values)).rowcount != 1:
                raise PasswordWrong("The password has just been changed. Log in with the new one.")
            row = {"token_hash": token_hash(token), "user_id": known.id, "network": network}
            connection.execute(insert_into(SESSIONS).values(**row, created_at=at, seen_at=at))
            record(connection, Actor(known.name, network), "logged in", at=at)
        return token

    def find(self, token: str) -> Session | None:
        """The session of a token, unless it is over or its user was removed. Counts as a request of it."""
        at, key = now_ms(), token_hash(token)
        alive = (
            SESSIONS.c.token_hash == key,
            SESSIONS.c.seen_at > at - self._idle_ms,
            SESSIONS.c.created_at > at - self._most_ms,
            USERS.c.removed_at.is_(None),
        )
        found = select(USERS, SESSIONS.c.seen_at, SESSIONS.c.created_at.label("begun_at")).join(
            SESSIONS, SESSIONS.c.user_id == USERS.c.id
        )
        with self._database.reading() as connection:
            row = connection.execute(found.where(*alive)).one_or_none()
        if row is None:
            return None
        if at - row.seen_at >= min(_TOUCH_MS, self._idle_ms // 2):
            with self._database.writing() as connection:
                connection.execute(update(SESSIONS).where(SESSIONS.c.token_hash == key).values(seen_at=at))
        return Session(key, as_user(row), row.begun_at)

    def of(self, user: User) -> list[OpenSession]:
        """The user's sessions that are not over, the latest used first."""
        at = now_ms()
        alive = (
            SESSIONS.c.user_id == user.id,
            SESSIONS.c.seen_at > at - self._idle_ms,
            SESSIONS.c.created_at > at - self._most_ms,
        )
        with self._database.reading() as connection:
            rows = connection.execute(select(SESSIONS).where(*alive).order_by(SESSIONS.c.seen_at.desc()))
            return [OpenSession(row.token_hash, row.network, row.created_at, row.seen_at) for row in rows]

    def end(self, session: Session, *, by: Actor) -> None:
        """Log out."""
        with self._database.writing() as connection:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.token_hash == session.key))
            record(connection, by, "logged out", at=now_ms())

    def end_others(self, session: Session, *, by: Actor) -> int:
        """Log the user out everywhere but here; how many sessions that were."""
        others = (SESSIONS.c.user_id == session.user.id, SESSIONS.c.token_hash != session.key)
        with self._database.writing() as connection:
            count = connection.execute(delete(SESSIONS).where(*others)).rowcount
            record(
                connection, by, "other sessions ended", about=session.user.name, at=now_ms(), detail={"count": count}
            )
        return count

    def verify(self, user: User, password: str, *, network: str) -> None:
        """Ask somebody who is logged in for their password once more. Raises as `log_in` does."""
        attempt = self._attempts.begin(account_key(user.id, user.name), network, now_ms())
        with self._database.reading() as connection:
            kept = connection.execute(select(USERS.c.password_hash).where(USERS.c.id == user.id)).scalar_one()
        if not self._passwords.verify(kept, password):
            self._record_failure(user.name, network, last=attempt.last)
            raise PasswordWrong("This is not your password.")
        self._attempts.forgive(attempt.id)

    def _record_failure(self, name: str | None, network: str, *, last: bool) -> None:
        """A name that nobody has is left out: it may be a password in the wrong field."""
        nobody, at = Actor("", network), now_ms()
        with self._database.writing() as connection:
            record(
                connection, nobody, "login failed", about=name or "", at=at, detail={} if name else {"name": "unknown"}
            )
            if last:
                record(connection, nobody, "logins held back", about=name or "", at=at)

    def _drop_old(self, connection: Connection, user_id: int, at: int) -> None:
        over = (SESSIONS.c.seen_at <= at - self._idle_ms) | (SESSIONS.c.created_at <= at - self._most_ms)
        connection.execute(delete(SESSIONS).where(over))
        newest = select(SESSIONS.c.token_hash).where(SESSIONS.c.user_id == user_id).order_by(SESSIONS.c.seen_at.desc())
        surplus = list(connection.execute(newest.offset(_SESSIONS_MOST - 1).limit(1_000)).scalars())
        if surplus:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.token_hash.in_(surplus)))


def token_hash(token: str) -> str:
    """What the database keeps of a token: it has 256 random bits, so that one pass of SHA-256 is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
