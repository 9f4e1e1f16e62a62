"""Ids for what repeats: texts, strata, actors, and for media and names.

Ids are given in the order in which things are met, by the one process that writes, and mean nothing outside a store.
Looked up in batches; what was looked up lately is remembered. An instance of `Identities` belongs to one writer: after
a transaction that was rolled back it is to be made anew.
"""

import hashlib
from collections.abc import Collection, Hashable, Iterable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, func, select

from federation_audit.store.rows import add, chunks, rows_by_bytes
from federation_audit.store.tables import ACTORS, MEDIA, NAMES, STRATA, TEXTS

_REMEMBERED_MOST = 200_000


class TextKind(IntEnum):
    """What a text of the dictionary is."""

    TENANT = 1
    INSTANCE = 2
    COMMUNITY = 3
    RULES = 4
    MARK = 5
    RESCAN = 6
    RESCAN_OUTCOME = 7


class NameKind(IntEnum):
    """What a name of an image is."""

    ALIAS = 1
    URL = 2


class MediaKey(NamedTuple):
    """A tenant's file."""

    tenant: str
    sha256: bytes


class NameKey(NamedTuple):
    """A name of an image in one tenant's store."""

    tenant: str
    kind: NameKind
    text: str


class StratumKey(NamedTuple):
    """What judged: models as canonical JSON, policy id, hash list with its version."""

    models: str
    policy: str
    hash_list: str


class ActorKey(NamedTuple):
    """An actor's pseudonym under the key of one quarter."""

    key_id: str
    pseudonym: bytes


class Identities:
    """Gives ids, and finds those given before."""

    def __init__(self, connection: Connection) -> None:
        self._remembered: dict[type, dict[Any, int]] = {}
        self._next = {table.name: _highest(connection, table) + 1 for table in (TEXTS, STRATA, ACTORS)}
        self._next_subject = max(_highest(connection, MEDIA), _highest(connection, NAMES)) + 1

    def texts(self, connection: Connection, kind: TextKind, texts: Collection[str]) -> dict[str, int]:
        """The ids of `texts`; "" is 0."""
        found = self._known(str, [(kind, text) for text in texts if text])
        missing = {text for text in texts if text and (kind, text) not in found}
        for chunk in chunks(missing):
            query = select(TEXTS.c.text, TEXTS.c.id).where(TEXTS.c.kind == int(kind), TEXTS.c.text.in_(chunk))
            found |= {(kind, text): number for text, number in connection.execute(query)}
        new = [(kind, text) for text in sorted(missing) if (kind, text) not in found]
        found |= self._give(TEXTS, new)
        add(connection, TEXTS, [{"id": found[key], "kind": int(kind), "text": key[1]} for key in new])
        self._remember(str, found)
        return {text: number for (_, text), number in found.items()} | {"": 0}

    def strata(self, connection: Connection, keys: Collection[StratumKey]) -> dict[StratumKey, int]:
        """The ids of `keys`."""
        found = self._known(StratumKey, keys)
        missing = set(keys) - found.keys()
        if missing:  # there are few strata, and new ones are rare
            rows = connection.execute(select(STRATA.c.id, STRATA.c.models, STRATA.c.policy, STRATA.c.hash_list))
            found |= {key: number for number, *rest in rows if (key := StratumKey(*rest)) in missing}
        new = [key for key in sorted(missing) if key not in found]
        found |= self._give(STRATA, new)
        add(connection, STRATA, [{"id": found[key], **key._asdict()} for key in new])
        self._remember(StratumKey, found)
        return found

    def actors(self, connection: Connection, keys: Collection[ActorKey]) -> dict[ActorKey, int]:
        """The ids of `keys`."""
        found = self._known(ActorKey, keys)
        found |= self._actors_there(connection, set(keys) - found.keys())
        new = [key for key in sorted(set(keys)) if key not in found]
        found |= self._give(ACTORS, new)
        add(connection, ACTORS, [{"id": found[key], **key._asdict()} for key in new])
        self._remember(ActorKey, found)
        return found

    def actors_there(self, connection: Connection, keys: Collection[ActorKey]) -> dict[ActorKey, int]:
        """The ids of those of `keys` that have one."""
        return self._actors_there(connection, set(keys))

    def forget_remembered(self) -> None:
        """Rows were deleted: look everything up again."""
        self._remembered.clear()

    def media(self, connection: Connection, keys: Collection[MediaKey]) -> tuple[dict[MediaKey, int], set[int]]:
        """The ids of `keys`, and which of them are new."""
        tenants = self.texts(connection, TextKind.TENANT, {key.tenant for key in keys})
        found = self._known(MediaKey, keys)
        wanted = {(key.sha256, tenants[key.tenant]): key for key in keys if key not in found}
        columns = (MEDIA.c.sha256, MEDIA.c.tenant_id, MEDIA.c.id)
        hashes = {sha256 for sha256, _ in wanted}
        for sha256, tenant_id, number in rows_by_bytes(connection, columns, MEDIA.c.sha256, hashes):
            if (key := wanted.get((sha256, tenant_id))) is not None:
                found[key] = number
        new = [key for key in wanted.values() if key not in found]
        found |= self._give_subjects(new)
        rows = [{"id": found[key], "tenant_id": tenants[key.tenant], "sha256": key.sha256} for key in new]
        add(connection, MEDIA, rows)
        self._remember(MediaKey, found)
        return found, {found[key] for key in new}

    def names(self, connection: Connection, keys: Collection[NameKey]) -> dict[NameKey, int]:
        """The ids of `keys`."""
        tenants = self.texts(connection, TextKind.TENANT, {key.tenant for key in keys})
        found = self._known(NameKey, keys)
        wanted = {
            (hashlib.sha256(key.text.encode()).digest(), int(key.kind), tenants[key.tenant]): key
            for key in keys
            if key not in found
        }
        columns = (NAMES.c.digest, NAMES.c.kind, NAMES.c.tenant_id, NAMES.c.id)
        digests = {digest for digest, _, _ in wanted}
        for digest, kind, tenant_id, number in rows_by_bytes(connection, columns, NAMES.c.digest, digests):
            if (key := wanted.get((digest, kind, tenant_id))) is not None:
                found[key] = number
        new = {parts: key for parts, key in wanted.items() if key not in found}
        found |= self._give_subjects(new.values())
        rows: list[dict[str, Any]] = [
            {"id": found[key], "digest": digest, "kind": kind, "tenant_id": tenant_id, "text": key.text}
            for (digest, kind, tenant_id), key in new.items()
        ]
        add(connection, NAMES, rows)
        self._remember(NameKey, found)
        return found

    def _actors_there(self, connection: Connection, keys: set[ActorKey]) -> dict[Any, int]:
        found = {}
        columns = (ACTORS.c.key_id, ACTORS.c.pseudonym, ACTORS.c.id)
        pseudonyms = {key.pseudonym for key in keys}
        for key_id, pseudonym, number in rows_by_bytes(connection, columns, ACTORS.c.pseudonym, pseudonyms):
            if (key := ActorKey(key_id, pseudonym)) in keys:
                found[key] = number
        return found

    def _known(self, kind: type, keys: Iterable[Any]) -> dict[Any, int]:
        remembered = self._remembered.setdefault(kind, {})
        return {key: remembered[key] for key in keys if key in remembered}

    def _remember(self, kind: type, found: Mapping[Any, int]) -> None:
        remembered = self._remembered[kind]
        if len(remembered) + len(found) > _REMEMBERED_MOST:
            remembered.clear()
        remembered.update(found)

    def _give(self, table: Table, keys: Collection[Hashable]) -> dict[Any, int]:
        first = self._next[table.name]
        self._next[table.name] = first + len(keys)
        return {key: first + number for number, key in enumerate(keys)}

    def _give_subjects(self, keys: Collection[Hashable]) -> dict[Any, int]:
        first = self._next_subject
        self._next_subject += len(keys)
        return {key: first + number for number, key in enumerate(keys)}


def _highest(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.max(table.c.id))).scalar() or 0
