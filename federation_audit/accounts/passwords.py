"""Passwords: what is accepted, how they are hashed (argon2id), and how a first one is made.

The hash's parameters are RFC 9106's second recommendation (64 MiB, 3 passes) with one lane, since we hash in one
thread. At most `AT_ONCE` are hashed at a time, so that a flood of logins takes 128 MiB and two cores, not all there is.
"""

import secrets
import unicodedata
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from federation_audit.accounts.errors import PasswordRefused, TooManyAttempts

LENGTH_LEAST = 12
LENGTH_MOST = 256
_DISTINCT_LEAST = 5
AT_ONCE = 2
_WAITING_MOST = 12
_BUSY_RETRY_S = 5
# Without 0, o, 1, l, i: it may be read from a screen or told over a telephone.
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS = 5
_GROUP = 4


class Passwords:
    """Hashes and verifies. The parameters are argon2's: passes, KiB of memory, lanes."""

    def __init__(self, *, time_cost: int = 3, memory_cost: int = 65_536, parallelism: int = 1) -> None:
        self._hasher = PasswordHasher(time_cost=time_cost, memory_cost=memory_cost, parallelism=parallelism)
        self._turn = BoundedSemaphore(AT_ONCE)
        self._room = BoundedSemaphore(_WAITING_MOST)
        # What the password of somebody who does not exist is compared with: it takes as long as a real comparison.
        self._nobodys = self._hasher.hash(secrets.token_hex(16))

    def hash(self, password: str) -> str:
        """The hash to keep, with its parameters and salt."""
        with self._turn:
            return self._hasher.hash(_normal(password))

    def verify(self, kept: str | None, password: str) -> bool:
        """Whether `password` is that of the hash `kept`; None (nobody) takes as long and is False.

        Raises `TooManyAttempts` when more logins wait than we can soon serve.
        """
        if not self._room.acquire(blocking=False):
            raise TooManyAttempts("Many people log in just now. Wait a few seconds.", retry_s=_BUSY_RETRY_S)
        try:
            with self._turn:
                # What is longer than a password may be is compared all the same, cut: refusing it would be faster.
                self._hasher.verify(kept or self._nobodys, _normal(password[: LENGTH_MOST + 1]))
        except (VerificationError, InvalidHashError):
            return False
        finally:
            self._room.release()
        return bool(kept)

    def outdated(self, kept: str) -> bool:
        """Whether the hash was made with other parameters than ours now: hash again while the password is at hand."""
        return self._hasher.check_needs_rehash(kept)


def check_password(password: str, *, name: str) -> None:
    """Raise `PasswordRefused` unless it is long enough for one that is not made by a machine."""
    plain = _normal(password)
    if len(plain) < LENGTH_LEAST:
        raise PasswordRefused(
            f"The password has {len(plain)} characters. Take at least {LENGTH_LEAST}, such as four words."
        )
    if len(plain) > LENGTH_MOST:
        raise PasswordRefused(f"The password has more than {LENGTH_MOST} characters. Take a shorter one.")
    if len(set(plain)) < _DISTINCT_LEAST:
        raise PasswordRefused("The password repeats a few characters. Take several words, or let a program make one.")
    bare = plain.casefold().replace(name.casefold(), "") if name else plain
    if len(bare) < LENGTH_LEAST // 2:
        raise PasswordRefused("The password is hardly more than the user's name. Take several words of your own.")


def make_password() -> str:
    """A password of 99 bits that can be read out."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS))


def _normal(password: str) -> str:
    """One form for what keyboards write in several (NIST SP 800-63B, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
