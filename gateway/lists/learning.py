"""Our own rejections as a list: the frames that a policy rejected, so that the same picture needs no scan again."""

import asyncio

import structlog

from gateway.lists.definition import ListDefinition
from gateway.lists.errors import ListError, ListUnknown
from gateway.lists.kinds import HashKind
from gateway.lists.settings import LearnSettings
from gateway.lists.store import ListStore, Note
from schemas.messages import Decision, Stage, Verdict

log = structlog.get_logger("gateway.lists")

_GATHER_S = 1.0
_JUDGED = (Stage.LIVE, Stage.BACKLOG)
_ADDED_MOST = 10_000


def lessons_of(verdict: Verdict, *, min_quality: int) -> dict[bytes, Note]:
    """The hashes that a verdict teaches, with what is to be known of each.

    Only what a scanner's policy rejected, and only the frames that a rejecting rule saw worst: the others of an
    animation may be harmless. A list's own match teaches nothing: others' hashes do not become ours.
    """
    if verdict.decision is not Decision.REJECT or verdict.stage not in _JUDGED:
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
    """Collects what verdicts teach and writes it to the list, some at a time.

    Several gateways see the same verdicts and may share the folder: an entry that is there is not added again, nor is
    one that a person took out. `run` is the task; belongs to one event loop.
    """

    def __init__(self, settings: LearnSettings, store: ListStore) -> None:
        self._settings = settings
        self._store = store
        self._waiting: dict[bytes, Note] = {}
        self._some = asyncio.Event()
        self._full = False

    def observe(self, verdict: Verdict) -> None:
        """Take in one verdict, old or new."""
        learnt = lessons_of(verdict, min_quality=self._settings.min_quality)
        if learnt and len(self._waiting) < _ADDED_MOST:
            self._waiting |= learnt
            self._some.set()

    async def run(self) -> None:
        """Write what was taken in, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_GATHER_S)
            self._some.clear()
            taken, self._waiting = self._waiting, {}
            try:
                await asyncio.to_thread(self._add, taken)
            except ListError as error:
                log.error("our own rejections are not listed", list=self._settings.list_name, error=str(error))

    def _add(self, taken: dict[bytes, Note]) -> None:
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
            new = {each: note for each, note in taken.items() if each.hex() not in notes}
            room = self._settings.max_hashes - len(hashes[HashKind.PDQ])
            if len(new) > room:
                if not self._full:
                    log.warning("our own list is full", list=name, setting="gateway.lists.learn.max_hashes")
                self._full = True
                new = dict(list(new.items())[: max(room, 0)])
            if not new:
                return
            hashes[HashKind.PDQ] |= set(new)
            notes |= {each.hex(): note for each, note in new.items()}
            saved = self._store.save(definition, HashSet.of(hashes), notes=notes)
        log.info("our own rejections listed", list=name, added=len(new), version=saved.version)


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
        notes = {**stored.notes, digest.hex(): {"removed": True}} if not stored.definition.source else stored.notes
        store.save(stored.definition, HashSet.of(kept), notes=notes, fetched_at=stored.fetched_at)
    return found
