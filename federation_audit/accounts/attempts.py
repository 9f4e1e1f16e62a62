"""The brake on guessing passwords: failures count per account and per client network, in the database.

An attempt is written down before its password is looked at, and struck out when it was right. So a hundred attempts
at the same moment, in several processes, count as a hundred. Refused attempts do not count: whoever goes on guessing
does not keep the owner out for longer than the window.
"""

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, func, insert, select

from federation_audit.accounts.database import Database
from federation_audit.accounts.errors import TooManyAttempts
from federation_audit.accounts.tables import ATTEMPTS

WINDOW_MS = 15 * 60_000
ACCOUNT_MOST = 10
NETWORK_MOST = 30


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that may go on. `last` is true when another failure will be refused."""

    id: str
    last: bool


class Attempts:
    """Counts attempts to log in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, account: str, network: str, now_ms: int) -> Attempt:
        """Write an attempt down. Raises `TooManyAttempts` when those before it failed too often."""
        attempt = secrets.token_hex(16)
        with self._database.writing() as connection:
            connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.at <= now_ms - WINDOW_MS))
            connection.execute(insert(ATTEMPTS).values(id=attempt, account=account, network=network, at=now_ms))
        # In a transaction after that: now everybody's attempts are seen.
        with self._database.reading() as connection:

            def failures(which: ColumnElement[bool]) -> tuple[int, int]:
                counted = select(func.count(), func.min(ATTEMPTS.c.at)).where(which, ATTEMPTS.c.at > now_ms - WINDOW_MS)
                count, first = connection.execute(counted).one()
                return count, first or now_ms

            of_account, first_of_account = failures(ATTEMPTS.c.account == account)
            of_network, first_of_network = failures(ATTEMPTS.c.network == network)
        over = [
            first
            for count, most, first in (
                (of_account, ACCOUNT_MOST, first_of_account),
                (of_network, NETWORK_MOST, first_of_network),
            )
            if count > most
        ]
        if over:
            self.forgive(attempt)
            wait_s = max(1, -(-(max(over) + WINDOW_MS - now_ms) // 1000))
            raise TooManyAttempts(
                f"Too many wrong passwords. Wait {-(-wait_s // 60)} min, then try again;"
                " or have an admin set a new password.",
                retry_s=wait_s,
            )
        return Attempt(attempt, last=of_account == ACCOUNT_MOST or of_network == NETWORK_MOST)

    def forgive(self, attempt: str) -> None:
        """Strike out an attempt that was none: the password was right."""
        with self._database.writing() as connection:
            connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.id == attempt))


def account_key(user_id: int | None, name: str) -> str:
    """What attempts at an account count under.

    A name that nobody has may be a password in the wrong field. Of those, 16 bits of a hash are kept: enough to
    count by, too little to guess from.
    """
    if user_id is not None:
        return f"user {user_id}"
    return "nobody " + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:4]
