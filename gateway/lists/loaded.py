"""A list in memory, and the search through several. Heavy to import (numpy): for when there is a list."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.frames.frame import QUALITY_LEAST, VARIANTS, Frame
from gateway.frames.pdq import turn_hashes
from gateway.lists.definition import ListDefinition
from gateway.lists.errors import ListError
from gateway.lists.hashes import Rows
from gateway.lists.index import ExactIndex, PdqIndex
from gateway.lists.kinds import HashKind
from gateway.lists.match import Match
from gateway.lists.store import ListStore, Stamp, StoredList


@dataclass(frozen=True, slots=True)
class LoadedList:
    """One list, ready to be searched: `stamp` is its file's, `size` how many hashes it has."""

    stamp: Stamp
    definition: ListDefinition
    version: str
    size: int
    pdq: PdqIndex
    sha256: ExactIndex
    md5: ExactIndex

    @property
    def name(self) -> str:
        """The list's name."""
        return self.definition.name

    def match(self, kind: HashKind, *, distance: int = 0, frame: int = 0) -> Match:
        """An image that was found on it."""
        definition = self.definition
        return Match(
            definition.name,
            self.version,
            definition.origin,
            definition.decision,
            definition.reason,
            kind,
            distance,
            frame,
        )


def load_list(store: ListStore, name: str, stamp: Stamp) -> LoadedList:
    """Read a list and build its indexes: seconds for a million hashes. Raises `ListError`."""
    stored = store.load(name)
    if stored.name != name:
        raise ListError(f"the list in {name}.list calls itself {stored.name!r}; was the file renamed?")
    return _index(stored, stamp)


def _index(stored: StoredList, stamp: Stamp) -> LoadedList:
    rows = stored.hashes.rows
    return LoadedList(
        stamp,
        stored.definition,
        stored.version,
        len(stored.hashes),
        PdqIndex(rows[HashKind.PDQ], stored.definition.distance),
        ExactIndex(rows[HashKind.SHA256]),
        ExactIndex(rows[HashKind.MD5]),
    )


def search_frames(lists: Sequence[LoadedList], frames: Sequence[Frame]) -> list[Match]:
    """The lists that have one of the frames, turned or mirrored as it may be; those too plain are left out."""
    fit = [at for at, frame in enumerate(frames) if frame.pdq_quality >= QUALITY_LEAST]
    packed = b"".join(frames[at].pdq + frames[at].pdq_turned for at in fit)
    return _search(lists, np.frombuffer(packed, np.uint8).reshape(-1, 32), fit)


def search_hashes(lists: Sequence[LoadedList], hashes: Sequence[bytes]) -> list[Match]:
    """The same for frames of which only the hash is known."""
    return _search(lists, turn_hashes(hashes), range(len(hashes)))


def find_hash(stored: StoredList, digest: bytes, kinds: Sequence[HashKind]) -> list[Match]:
    """The matches of one hash, taken as each of `kinds`, with one list, expired or suspended as it may be."""
    loaded = _index(stored, Stamp(0, 0, 0))
    found = []
    if HashKind.PDQ in kinds:
        found += search_hashes([loaded], [digest])
    for kind, index in ((HashKind.SHA256, loaded.sha256), (HashKind.MD5, loaded.md5)):
        if kind in kinds and digest in index:
            found.append(loaded.match(kind))
    return found


def _search(lists: Sequence[LoadedList], queries: Rows, frames: Sequence[int]) -> list[Match]:
    found = []
    for each in lists:
        nearest = min(each.pdq.search(queries), key=lambda near: near.distance, default=None)
        if nearest is not None:
            frame = frames[nearest.query // VARIANTS]
            found.append(each.match(HashKind.PDQ, distance=nearest.distance, frame=frame))
    return found
