"""A list as others read it: hashes, what they are and how they came about; no image, no sender, no scan."""

import hashlib
import hmac
from collections.abc import Collection
from typing import Any

import orjson
from pydantic import SecretStr

from gateway.lists.errors import ListUnknown
from gateway.lists.kinds import HashKind
from gateway.lists.store import FORMAT, ListStore, StoredList
from schemas.clock import now_ms

_PROVENANCE = ("by", "at", "rules", "policy")


def as_document(stored: StoredList) -> dict[str, Any]:
    """The list as JSON has it; times are in milliseconds since the epoch."""
    definition = stored.definition
    return {
        "format": FORMAT,
        "name": definition.name,
        "version": stored.version,
        "reason": definition.reason,
        "responsible": definition.responsible,
        "origin": definition.origin,
        "fetched_at": stored.fetched_at,
        "expires_at": definition.expires_at,
        "counts": stored.hashes.counts,
        "hashes": {kind.value: stored.hashes.hexadecimal(kind) for kind in HashKind},
        "provenance": {
            digest: {name: note[name] for name in _PROVENANCE if name in note}
            for digest, note in stored.notes.items()
            if not note.get("removed")
        },
    }


class Publishing:
    """Gives lists to those who have the token. Without a token, or with no list shared, nobody gets any."""

    def __init__(self, store: ListStore | None, shared: Collection[str], token: SecretStr | None) -> None:
        self._store = store
        self._shared = frozenset(shared)
        self._digest = _digest(token.get_secret_value()) if token is not None else None

    def admits(self, token: str | None) -> bool:
        """Whether this is the readers' token; in constant time."""
        if self._digest is None or token is None:
            return False
        return hmac.compare_digest(self._digest, _digest(token))

    def read(self, name: str, known_version: str) -> tuple[str, bytes | None]:
        """A list's version, and its document; None where the reader has it in `known_version`. Blocks.

        Raises `ListUnknown` for what is not shared, and for what we ourselves do not use (suspended, expired).
        """
        if self._store is None or name not in self._shared:
            raise ListUnknown(f"no list {name!r} is shared here")
        stored = self._store.load(name)
        if stored.definition.has_expired(now_ms()):
            raise ListUnknown(f"the list {name} has expired")
        if self._store.suspension(name) is not None:
            raise ListUnknown(f"the list {name} is suspended: it matched too much")
        if stored.version == known_version:
            return stored.version, None
        return stored.version, orjson.dumps(as_document(stored))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
