"""The sweep itself: page after page of a source, each object read, judged and, where that is asked for, removed."""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from fediwarden.sweep.checkpoints import Checkpoints, object_id
from fediwarden.sweep.errors import NobodyJudges, ObjectError, ObjectGone, ObjectUnread, Unwanted
from fediwarden.sweep.judging import DAMAGED, Answer, Judge, patiently
from fediwarden.sweep.seen import Seen
from fediwarden.sweep.settings import SweepSettings
from fediwarden.sweep.source import TOO_LARGE, Body, Page, Source, StoredObject
from schemas.clock import now_ms
from schemas.messages import Decision, SweepCheckpoint, SweepFinding, SweepFound, SweepMode, SweepOutcome

_UNJUDGED_MOST = 8
"""So many images in a row without a verdict: nobody judges."""

_NAMED = {TOO_LARGE: SweepFinding.TOO_LARGE, DAMAGED: SweepFinding.DAMAGED}
_MAY_CHANGE = ("gone", "unreadable", "unjudged")
_TEXT_MOST = 900

Result = TypeVar("Result")


@dataclass
class Watcher:
    """Who is told what happens: `found` for each finding, `said` for a sentence, `moved` after each object."""

    found: Callable[[SweepFound], None] = lambda found: None
    said: Callable[[str], None] = lambda sentence: None
    moved: Callable[[Counter[str]], None] = lambda counts: None


@dataclass
class _UnderWay:
    """Bytes that are being judged: whoever reads the same ones meanwhile waits for their answer."""

    done: asyncio.Event = field(default_factory=asyncio.Event)


class Sweep:
    """One sweep of `source`. What it found and how far it is goes to `checkpoints`, page by page.

    A page that was begun and not ended is gone through again by who comes next: what was judged of it is known to the
    gateway. `counts` are those of the pass: listed, accepted, review, rejected, skipped (no image), unsupported (an
    image of a kind that is not read), duplicate, gone, damaged, too_large, unreadable, unjudged.
    """

    def __init__(
        self,
        source: Source,
        judge: Judge,
        checkpoints: Checkpoints,
        settings: SweepSettings,
        *,
        mode: SweepMode,
        most_bytes: int,
        watcher: Watcher,
        for_ever: bool = False,
    ) -> None:
        self._source = source
        self._judge = judge
        self._checkpoints = checkpoints
        self._settings = settings
        self._mode = mode
        self._most_bytes = most_bytes
        self._watcher = watcher
        self._for_ever = for_ever
        self._patience_s = math.inf if for_ever else settings.patience_s
        self._under_way: dict[bytes, _UnderWay] = {}
        self._unjudged = 0
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Go on where the sweep is, to the end of its pass; where the last one ended, with what is new since.

        For ever, where it is to follow. Raises a `SweepError` when it cannot go on, or a `BrokerError`.
        """
        await self._source.check()
        await self._judge.check()
        if not await self._judge.has_scanner():
            self._watcher.said("The gateway has heard of no scanner: images wait until there is one.")
        with Seen() as seen:
            while True:
                seen.forget_answers()  # of a pass before, which may be long ago
                await self._pass(seen)
                await self._settle_removals()
                if not self._for_ever:
                    return
                await asyncio.sleep(self._settings.follow_every_s)

    async def _pass(self, seen: Seen) -> None:
        standing = self._checkpoints.standing or SweepCheckpoint(
            sweep=self._checkpoints.sweep,
            source=self._source.name,
            mode=self._mode,
            begun_at=now_ms(),
            changed_at=now_ms(),
        )
        if not standing.position:
            standing = standing.model_copy(update={"begun_at": now_ms(), "counts": {}})
        self.counts = Counter(standing.counts)
        while True:
            page = await self._patiently(partial(self._source.page, standing.position, standing.marks))
            if page.note:
                self._watcher.said(page.note)
            await self._take(page, seen)
            update: dict[str, object] = {
                "position": page.position,
                "next_marks": page.marks or standing.next_marks,
                "counts": dict(self.counts),
            }
            if page.last:
                marks = update["next_marks"]
                update |= {"position": (), "marks": marks, "next_marks": (), "finished_at": now_ms()}
            standing = standing.model_copy(update=update)
            await self._checkpoints.note(standing)
            if page.last:
                return

    async def _patiently(self, call: Callable[[], Awaitable[Result]]) -> Result:
        return await patiently(call, self._patience_s, self._watcher.said)

    async def _take(self, page: Page, seen: Seen) -> None:
        """Deal with every object of a page, some at a time."""
        slots = asyncio.Semaphore(self._settings.concurrency)

        async def take(stored: StoredObject) -> None:
            async with slots:
                await self._take_object(stored, seen)
                self._watcher.moved(self.counts)

        try:
            async with asyncio.TaskGroup() as tasks:
                for stored in page.objects:
                    if not seen.is_done(stored.key, stored.version):
                        tasks.create_task(take(stored))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # what ended one, which has ended the others

    async def _take_object(self, stored: StoredObject, seen: Seen) -> None:
        count = "accepted"
        with Body(self._most_bytes) as body:
            try:
                await self._read(stored, body)
                answer, is_duplicate = await self._answer(body, seen)
            except ObjectGone:
                count = "gone"
                await self._checkpoints.forget_found(object_id(stored.key))
            except Unwanted as error:
                count = error.count
                if error.count in _NAMED:
                    await self._found(stored, _NAMED[error.count], detail=str(error))
            except ObjectError as error:
                count = "unreadable"
                await self._found(stored, SweepFinding.UNREADABLE, detail=str(error))
            else:
                count = await self._act(stored, body, answer)
                if is_duplicate:
                    self.counts["duplicate"] += 1
        self.counts[count] += 1
        self.counts["listed"] += 1
        removed = count == "rejected" and self._mode is not SweepMode.REPORT  # it may come back as it was
        if not removed and count not in _MAY_CHANGE:
            seen.note_done(stored.key, stored.version)

    async def _read(self, stored: StoredObject, body: Body) -> None:
        """Read an object, once more where that fails and it is not the store that is away."""
        if stored.fault:
            raise ObjectUnread(stored.fault)
        try:
            await self._source.read(stored, body)
        except ObjectUnread:
            await self._patiently(self._source.check)
            body.clear()
            await self._source.read(stored, body)

    async def _answer(self, body: Body, seen: Seen) -> tuple[Answer, bool]:
        """What is made of these bytes, and whether they came before: then nobody is asked again.

        But for what is to be removed: a moderator may have spoken for it since.
        """
        sha256 = body.sha256
        while (other := self._under_way.get(sha256)) is not None:
            await other.done.wait()
        known = seen.answer(sha256)
        if known is not None and (known.accepted or self._mode is SweepMode.REPORT):
            return known, True
        mine = self._under_way[sha256] = _UnderWay()
        try:
            answer = await self._patiently(partial(self._judge.judge, body))
            if answer.judged:
                self._unjudged = 0
                seen.note_answer(sha256, answer)
            return answer, known is not None
        finally:
            del self._under_way[sha256]
            mine.done.set()

    async def _act(self, stored: StoredObject, body: Body, answer: Answer) -> str:
        """Say what was found and do what is to be done; the name that it is counted under."""
        facts: dict[str, Any] = {
            "sha256": body.sha256,
            "length": body.length,
            "scan_id": answer.scan_id,
            "answered_by": answer.answered_by,
            "rules": answer.rules,
            "detail": answer.reason,
        }
        if not answer.judged:
            self._unjudged += 1
            if self._unjudged >= _UNJUDGED_MOST:
                raise NobodyJudges(
                    f"{self._unjudged} images in a row had no verdict within {self._settings.verdict_within_s:g} s"
                    " (sweep.verdict_within_s): is a scanner running, and has it time besides what comes in live?"
                    " `fediwarden doctor` looks. The same command goes on from here."
                )
            await self._found(stored, SweepFinding.UNJUDGED, **facts)
            return "unjudged"
        if answer.accepted:
            if answer.decision is Decision.REVIEW:
                await self._found(stored, SweepFinding.REVIEW, **facts)
                return "review"
            await self._checkpoints.forget_found(object_id(stored.key))  # of an earlier pass, with other judges
            return "accepted"
        await self._reject(stored, body, facts)
        return "rejected"

    async def _reject(self, stored: StoredObject, body: Body, facts: dict[str, Any]) -> None:
        if self._mode is SweepMode.REPORT:
            await self._found(stored, SweepFinding.REJECTED, **facts)
            return
        await self._found(stored, SweepFinding.REJECTED, SweepOutcome.REMOVING, tell=False, **facts)
        outcome = self._removed
        try:
            try:
                detail = await self._remove(stored, body)
            except ObjectUnread:
                await self._patiently(self._source.check)
                detail = await self._remove(stored, body)
        except ObjectGone:
            outcome, detail = SweepOutcome.REMOVED, "somebody else removed it"
        except ObjectError as error:
            outcome, detail = SweepOutcome.KEPT, str(error)
        await self._found(stored, SweepFinding.REJECTED, outcome, **{**facts, "detail": detail})

    @property
    def _removed(self) -> SweepOutcome:
        return SweepOutcome.QUARANTINED if self._mode is SweepMode.QUARANTINE else SweepOutcome.REMOVED

    async def _remove(self, stored: StoredObject, body: Body) -> str:
        """Remove or move an object; a word about where it went."""
        if self._mode is SweepMode.QUARANTINE:
            return f"now at {await self._source.move(stored, body)}"
        await self._source.remove(stored)
        return ""

    async def _found(
        self,
        stored: StoredObject,
        finding: SweepFinding,
        outcome: SweepOutcome = SweepOutcome.LEFT,
        *,
        tell: bool = True,
        **facts: Any,
    ) -> None:
        facts["detail"] = str(facts.get("detail", ""))[:_TEXT_MOST]
        found = SweepFound(
            sweep=self._checkpoints.sweep,
            object_id=object_id(stored.key),
            path=stored.path[:_TEXT_MOST],
            finding=finding,
            outcome=outcome,
            found_at=now_ms(),
            **facts,
        )
        await self._checkpoints.note_found(found)
        if tell:
            self._watcher.found(found)

    async def _settle_removals(self) -> None:
        """Say what became of objects whose removal was under way when a sweep was killed, and that are listed no more.

        What is listed was come upon again, on the page that was begun anew.
        """
        for found in list(self._checkpoints.found.values()):
            if found.outcome is SweepOutcome.REMOVING:
                detail = "by a sweep that ended before it could say so"
                await self._checkpoints.note_found(
                    found.model_copy(update={"outcome": self._removed, "detail": detail})
                )
