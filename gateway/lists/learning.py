"""Our own rejections as a list, so that the same picture needs no scan again: by a policy, or confirmed by a person.

A person's word is an override for every tenant and without an end: what it denies is listed, what it allows is taken
out and kept out. Of two words on one hash the later counts, and before any policy's.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import structlog

from gateway.lists.definition import ListDefinition
from gateway.lists.errors import ListError, ListUnknown
from gateway.lists.kinds import HashKind
from gateway.lists.settings import LearnSettings
from gateway.lists.store import ListStore, Note
from gateway.overrides.memory import Looks, looks_in
from schemas.clock import now_ms
from schemas.messages import EVERY_TENANT, Decision, OverrideEffect, OverrideKind, OverrideSet, Stage, Verdict

log = structlog.get_logger("gateway.lists")

_GATHER_S = 1.0
_JUDGED = (Stage.LIVE, Stage.BACKLOG)
_ADDED_MOST = 10_000


def lessons_of(verdict: Verdict, *, min_quality: int) -> dict[bytes, Note]:
    """The hashes that a verdict teaches, with what is to be known of each.

    Only what a policy rejected, and only the frames that a rejecting rule saw worst: the others of an animation may be
    harmless. A rescan may have judged one by the highest scores of all frames: of those, pictures of one frame alone.
    A list's own match teaches nothing: others' hashes do not become ours.
    """
    rescanned = verdict.stage is Stage.RESCAN and not verdict.hash_list and verdict.frame_count == 1
    if verdict.decision is not Decision.REJECT or not (verdict.stage in _JUDGED or rescanned):
        return {}
    learnt: dict[bytes, Note] = {}
    for rule in verdict.rules:
        fits = rule.frame < min(len(verdict.pdq), len(verdict.pdq_quality))
        if rule.decision is not Decision.REJECT or not fits or verdict.pdq_quality[rule.frame] < min_quality:
            continue
        note = learnt.setdefault(
            verdict.pdq[rule.frame],
            {
                "by": "policy",
                "at": verdict.judged_at,
                "scan_id": verdict.scan_id,
                "policy": verdict.policy,
                "rules": [],
            },
        )
        note["rules"].append(rule.name)
    return learnt


class Learning:
    """Collects what verdicts and overrides teach and writes it to the list, some at a time.

    Several gateways see the same records and may share the folder: an entry that is there is not added again, nor is
    one that a person took out. `looks_of_bytes` gives the frames' hashes of a file that was judged, as far as it is
    known. `run` is the task; belongs to one event loop.
    """

    def __init__(self, settings: LearnSettings, store: ListStore, looks_of_bytes: Callable[[bytes], Looks]) -> None:
        self._settings = settings
        self._store = store
        self._looks_of_bytes = looks_of_bytes
        self._words: dict[bytes, OverrideSet] = {}
        self._waiting: dict[bytes, Note] = {}
        self._taken_back: set[str] = set()
        self._unlearnt: dict[bytes, int] = {}
        self._some = asyncio.Event()
        self._full = False

    def observe(self, verdict: Verdict) -> None:
        """Take in one verdict, old or new."""
        if (word := self._words.get(verdict.sha256)) is not None:
            self._take_in(looks_in(verdict).each(), word)
        if verdict.stage is Stage.RESCAN and not verdict.hash_list and verdict.decision is not Decision.REJECT:
            self._unlearn(verdict)
        if self._settings.source != "rejections" or len(self._waiting) >= _ADDED_MOST:
            return
        for digest, note in lessons_of(verdict, min_quality=self._settings.min_quality).items():
            self._waiting.setdefault(digest, note)
            self._some.set()

    def _unlearn(self, verdict: Verdict) -> None:
        """What is rejected no more is as any other image, unless a person's word lists it."""
        for digest in looks_in(verdict).each():
            if self._waiting.get(digest, {}).get("by") == "policy":
                del self._waiting[digest]
            self._unlearnt[digest] = verdict.judged_at
            self._some.set()

    def heed(self, override: OverrideSet) -> None:
        """Take in a person's word, old or new; one on bytes whose frames are not known yet waits for their verdict."""
        if override.tenant != EVERY_TENANT:
            return
        if override.until is not None:
            self.take_back(override)  # it is in the place of one that may have had no end
        elif override.kind is OverrideKind.PDQ:
            self._take_in((override.hash,), override)
        else:
            self._words[override.hash] = override
            self._take_in(self._looks_of_bytes(override.hash).each(), override)

    def take_back(self, override: OverrideSet) -> None:
        """A person's word holds no more: what was listed or kept out by it alone is as any other hash."""
        word = self._words.get(override.hash)
        if word is not None and word.override_id == override.override_id:
            del self._words[override.hash]
        self._waiting = {
            digest: note for digest, note in self._waiting.items() if note.get("override") != override.override_id
        }
        self._taken_back.add(override.override_id)
        self._some.set()

    def _take_in(self, digests: Iterable[bytes], word: OverrideSet) -> None:
        note: Note = {"by": "person", "at": word.set_at, "override": word.override_id}
        if word.effect is OverrideEffect.ALLOW:
            note = {"removed": True, "at": word.set_at, "override": word.override_id}
        self._taken_back.discard(word.override_id)
        for digest in digests:
            self._waiting[digest] = note
            self._some.set()

    async def run(self) -> None:
        """Write what was taken in, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_GATHER_S)
            self._some.clear()
            taken, self._waiting = self._waiting, {}
            taken_back, self._taken_back = self._taken_back, set()
            unlearnt, self._unlearnt = self._unlearnt, {}
            try:
                await asyncio.to_thread(self._write, taken, taken_back, unlearnt)
            except ListError as error:
                log.error("our own rejections are not listed", list=self._settings.list_name, error=str(error))

    def _write(
        self, taken: Mapping[bytes, Note], taken_back: Iterable[str] = (), unlearnt: Mapping[bytes, int] | None = None
    ) -> None:
        from gateway.lists.hashes import HashSet

        name = self._settings.list_name
        with self._store.locked():
            try:
                stored = self._store.load(name)
                definition, notes = stored.definition, dict(stored.notes)
                hashes = {kind: {row.tobytes() for row in stored.hashes.rows[kind]} for kind in HashKind}
            except ListUnknown:
                definition = ListDefinition(name=name, source="", reason="rejected here before")
                notes, hashes = {}, {kind: set() for kind in HashKind}
            if definition.source:
                raise ListError(f"the list {name} comes from {definition.source}; set gateway.lists.learn.list_name")
            listed = hashes[HashKind.PDQ]
            before, noted = set(listed), dict(notes)
            gone = set(taken_back)
            for named in [named for named, note in notes.items() if note.get("override") in gone]:
                del notes[named]
                listed.discard(bytes.fromhex(named))
            for digest, at in (unlearnt or {}).items():
                note = notes.get(digest.hex(), {})
                if note.get("by") == "policy" and note["at"] <= at:
                    del notes[digest.hex()]
                    listed.discard(digest)
            for digest, note in taken.items():
                if not _counts(note, notes.get(digest.hex())):
                    continue
                if note.get("removed"):
                    listed.discard(digest)
                elif digest in listed or len(listed) < self._settings.max_hashes:
                    listed.add(digest)
                else:
                    if not self._full:
                        log.warning("our own list is full", list=name, setting="gateway.lists.learn.max_hashes")
                    self._full = True
                    continue
                notes[digest.hex()] = note
            if notes == noted:
                return
            saved = self._store.save(definition, HashSet.of(hashes), notes=notes)
        log.info(
            "our own rejections listed",
            list=name,
            added=len(listed - before),
            taken_out=len(before - listed),
            version=saved.version,
        )


def _counts(note: Note, there: Note | None) -> bool:
    """Whether what is new of a hash takes the place of what is noted: a person's word does, unless it is older.

    What was taken out before it was noted when stays out.
    """
    if there is None:
        return True
    if "override" not in note:
        return False
    at: int = there.get("at", now_ms())
    by_policy = "override" not in there and not there.get("removed")
    return by_policy or bool(note["at"] > at)


def forget_hash(store: ListStore, name: str, digest: bytes) -> bool:
    """Take one hash out of a list for good; whether it was there. Raises `ListError`.

    A list with a source has it again when it is refreshed, one of our own decisions has not: a note keeps it out.
    """
    from gateway.lists.hashes import HashSet

    with store.locked():
        stored = store.load(name)
        hashes = {kind: {row.tobytes() for row in stored.hashes.rows[kind]} for kind in HashKind}
        found = any(digest in each for each in hashes.values())
        kept = {kind: each - {digest} for kind, each in hashes.items()}
        notes = (
            {**stored.notes, digest.hex(): {"removed": True, "at": now_ms()}}
            if not stored.definition.source
            else stored.notes
        )
        store.save(stored.definition, HashSet.of(kept), notes=notes, fetched_at=stored.fetched_at)
    return found
