"""What is read from the flagged media, kept in memory and brought up to date by what has changed since."""

from collections import OrderedDict
from collections.abc import Callable, Collection
from threading import Lock
from typing import Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine

from federation_audit.store.changes import changed_clusters
from federation_audit.store.state import read_state

Key = TypeVar("Key")
Found = TypeVar("Found")


class _Entry(NamedTuple, Generic[Found]):
    change: int
    found: Found


class Kept(Generic[Key, Found]):
    """What `read` finds for each of the keys that were asked for last, in each database: as many as together `weigh` no
    more than `most`.

    After a change, `update` makes of it, and of the clusters that changed, what `read` would find. Nobody writes into
    what is found: several threads have it. Each has it as it is in its own transaction.
    """

    def __init__(
        self,
        read: Callable[[Connection, Key], Found],
        update: Callable[[Connection, Key, Found, Collection[int]], Found],
        *,
        weigh: Callable[[Found], int] = lambda _: 1,
        most: int = 1,
    ) -> None:
        self._read = read
        self._update = update
        self._weigh = weigh
        self._most = most
        self._entries: WeakKeyDictionary[Engine, OrderedDict[Key, _Entry[Found]]] = WeakKeyDictionary()
        self._lock = Lock()

    def get(self, connection: Connection, key: Key) -> Found:
        """What there is for `key`, as it is in the transaction of `connection`."""
        change = read_state(connection).flags_change
        with self._lock:
            entry = self._entries.setdefault(connection.engine, OrderedDict()).get(key)
        if entry is None or entry.change > change:  # another transaction has seen more than ours does
            found = self._read(connection, key)
        elif entry.change == change:
            found = entry.found
        else:
            clusters = changed_clusters(connection, entry.change)
            if clusters is None:
                found = self._read(connection, key)
            else:
                found = self._update(connection, key, entry.found, clusters)
        self._keep(connection.engine, key, _Entry(change, found))
        return found

    def _keep(self, engine: Engine, key: Key, entry: _Entry[Found]) -> None:
        with self._lock:
            entries = self._entries[engine]
            there = entries.get(key)
            if there is None or there.change <= entry.change:
                entries[key] = entry
            entries.move_to_end(key)
            while sum(self._weigh(each.found) for each in entries.values()) > self._most:
                entries.popitem(last=False)
