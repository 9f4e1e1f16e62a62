"""Pseudonyms of actors: what the audit knows people by.

A pseudonym is the first 16 bytes of HMAC-SHA256(key, actor id): the same actor has the same one as long as the key is
in use, nobody without the key file can tell whose it is, and with the key gone nobody can. A key is in use for one
quarter (UTC) and bears its name (``2026Q4``), as the statistics that compare actors begin anew with each quarter. Those
of the running quarter and the four to come are made ahead, so that a copy of the file on another machine lasts a year;
keys go when the longest-kept record made with them has gone (13 months after their quarter).

The file is JSON, mode 0600: ``{"2026Q4": "<base64 of 32 bytes>", ...}``.
"""

import base64
import binascii
import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from schemas.clock import now_ms

PSEUDONYM_BYTES = 16
_KEY_BYTES = 32
_QUARTERS_AHEAD = 4
_QUARTERS_KEPT = 5  # 13 months, and what is left of the quarter they end in


class PseudonymKeysError(Exception):
    """The key file cannot be used; the message names the file and the remedy."""


class Pseudonym(NamedTuple):
    """An actor, as the audit knows it."""

    key_id: str
    value: bytes


class Pseudonyms:
    """The keys of some quarters."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    @classmethod
    def open(cls, path: Path, *, at_ms: int | None = None) -> Self:
        """The keys in `path` (made, mode 0600, where it is missing), once those due are made and those too old removed.

        Safe when several processes do this at once. A file that cannot be written is used as it is.

        Raises `PseudonymKeysError`: readable by others, damaged, or without the key of the quarter of `at_ms` (now).
        """
        at = _quarter(now_ms() if at_ms is None else at_ms)
        with contextlib.suppress(PermissionError), _locked(path):
            keys = _read(path) if path.exists() else {}
            due = {_name(at + ahead): secrets.token_bytes(_KEY_BYTES) for ahead in range(_QUARTERS_AHEAD + 1)}
            kept = {name: key for name, key in (due | keys).items() if _number(name) >= at - _QUARTERS_KEPT}
            if kept.keys() != keys.keys():
                _write(path, dict(sorted(kept.items())))
        keys = _read(path)
        if _name(at) not in keys:
            raise PseudonymKeysError(
                f"{path} has no key for {_name(at)} and cannot be written; copy it from the machine that made it"
            )
        return cls(keys)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The quarters that there are keys of, oldest first."""
        return tuple(sorted(self._keys))

    def pseudonym(self, actor_id: str, *, at_ms: int | None = None) -> Pseudonym | None:
        """Of the actor `actor_id` (an ActivityPub id, or another text that is one actor's alone) in the quarter of
        `at_ms` (now); None where the key of that quarter is gone: then the actor stays unknown."""
        key_id = _name(_quarter(now_ms() if at_ms is None else at_ms))
        key = self._keys.get(key_id)
        return None if key is None else Pseudonym(key_id, _digest(key, actor_id))

    def every(self, actor_id: str) -> list[Pseudonym]:
        """Of the actor `actor_id`, under each key that is kept."""
        return [Pseudonym(key_id, _digest(key, actor_id)) for key_id, key in sorted(self._keys.items())]


def _digest(key: bytes, actor_id: str) -> bytes:
    return hmac.new(key, actor_id.encode(), hashlib.sha256).digest()[:PSEUDONYM_BYTES]


def _quarter(at_ms: int) -> int:
    at = time.gmtime(at_ms / 1000)
    return at.tm_year * 4 + (at.tm_mon - 1) // 3


def _name(quarter: int) -> str:
    return f"{quarter // 4}Q{quarter % 4 + 1}"


def _number(name: str) -> int:
    year, _, quarter = name.partition("Q")
    return int(year) * 4 + int(quarter) - 1


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict[str, bytes]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PseudonymKeysError(
            f"key file {path}: {error.strerror}; copy it from the machine that made it, or remove it to begin anew"
            " (actors known before are others then)"
        ) from error
    if mode & 0o077:
        raise PseudonymKeysError(f"key file {path} can be read by others (mode {mode:04o}); run: chmod 600 {path}")
    try:
        keys = {str(name): base64.b64decode(value, validate=True) for name, value in json.loads(text).items()}
        for name, key in keys.items():
            if len(key) != _KEY_BYTES or _name(_number(name)) != name:
                raise ValueError(f"{name!r} is no quarter with a key of {_KEY_BYTES} bytes")
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise PseudonymKeysError(f"key file {path} is damaged ({error}); restore it from a backup") from error
    return keys


def _write(path: Path, keys: Mapping[str, bytes]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({name: base64.b64encode(key).decode("ascii") for name, key in keys.items()}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
