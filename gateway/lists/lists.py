"""The lists as one gateway has them in memory: kept up with their folder, and asked about every image."""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from gateway.frames.frame import Frame
from gateway.lists.errors import ListError
from gateway.lists.guard import MatchRate
from gateway.lists.kinds import HashKind
from gateway.lists.match import Match
from gateway.lists.settings import ListSettings
from gateway.lists.store import ListStore, Stamp, Suspension
from gateway.metrics import Metrics
from gateway.readiness import Part
from schemas.clock import now_ms

if TYPE_CHECKING:  # numpy's 12 MB are for gateways that have lists
    from gateway.lists.loaded import LoadedList

log = structlog.get_logger("gateway.lists")


class Lists:
    """Every list of the folder, each replaced as a whole when its file is.

    `match_bytes` is cheap; `match_frames` and `match_hashes` search in threads of their own, for a search takes
    milliseconds of CPU, which on the event loop would be everybody's. A list that has expired or is suspended matches
    nothing. `note` tells the guard what was found, and may suspend a list. Belongs to one event loop.
    """

    def __init__(
        self, settings: ListSettings, *, gateway: str, metrics: Metrics, clock_ms: Callable[[], int] = now_ms
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._store = ListStore(settings.folder) if settings.folder is not None else None
        self._rate = MatchRate(share=settings.guard_share, images=settings.guard_images, window=settings.guard_window)
        self._loaded: Mapping[str, LoadedList] = {}
        self._broken: dict[str, tuple[Stamp, str]] = {}
        self._suspended: dict[str, Stamp | None] = {}
        self._expired: set[str] = set()
        self._folder_fault = ""
        self._threads = ThreadPoolExecutor(max(1, min(2, len(os.sched_getaffinity(0)))), "lists")
        self._watching: asyncio.Task[None] | None = None
        self._suspending: set[asyncio.Task[None]] = set()
        metrics.watch("list_hashes", lambda: sum(e.size for e in self._active()))
        metrics.watch("lists_active", lambda: len(self._active()))
        metrics.watch("lists_idle", lambda: len(self._idle()))

    async def start(self) -> None:
        """Load what is there, then watch for changes until `stop`. A folder that is not there holds no lists."""
        if self._store is not None:
            await self._look(self._store)
            self._watching = asyncio.create_task(self._watch(self._store), name="lists")

    async def stop(self) -> None:
        """Watch no more."""
        tasks = [*self._suspending, *([self._watching] if self._watching else [])]
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def need_md5(self) -> bool:
        """Whether a list has hashes that want a file's md5."""
        return any(len(each.md5) for each in self._loaded.values())

    @property
    def generation(self) -> tuple[tuple[str, str], ...]:
        """What stands for the lists as they match now: where it is the same, the same image is found."""
        return tuple((each.name, each.version) for each in self._active())

    def match_bytes(self, sha256: bytes, md5: bytes | None) -> list[Match]:
        """The lists that have a file's hash."""
        found = []
        for each in self._active():
            if sha256 in each.sha256:
                found.append(each.match(HashKind.SHA256))
            elif md5 is not None and md5 in each.md5:
                found.append(each.match(HashKind.MD5))
        return found

    async def match_frames(self, frames: Sequence[Frame]) -> list[Match]:
        """The lists that have one of the frames, turned or mirrored as it may be."""
        lists = self._searched()
        if not lists:
            return []
        from gateway.lists.loaded import search_frames

        return await asyncio.get_running_loop().run_in_executor(self._threads, search_frames, lists, frames)

    async def match_hashes(self, hashes: Sequence[bytes]) -> list[Match]:
        """The same from frames' hashes of good quality alone, where the frames are no longer at hand."""
        lists = self._searched()
        if not lists or not hashes:
            return []
        from gateway.lists.loaded import search_hashes

        return await asyncio.get_running_loop().run_in_executor(self._threads, search_hashes, lists, hashes)

    def note(self, sha256: bytes, matches: Iterable[Match]) -> None:
        """An image was compared with all lists. A list that matches too much is suspended, here and everywhere."""
        matches = list(matches)
        for match in matches:
            self._metrics.list_matches.labels(match.name, match.kind.value, match.decision.value).inc()
        for name in self._rate.note(sha256, {match.name for match in matches}):
            loaded = self._loaded.get(name)
            if loaded is None or name in self._suspended or not loaded.definition.guarded:
                continue
            suspension = Suspension(
                version=loaded.version,
                matched=self._rate.matched(name),
                images=self._rate.images,
                at=self._clock_ms(),
                by=self._gateway,
            )
            self._suspended[name] = None
            log.error(
                "list suspended: it matches too much to be right",
                list=name,
                version=loaded.version,
                matched=suspension.matched,
                images=suspension.images,
                most_share=self._settings.guard_share,
                remedy=f"look at its source; `fediwarden lists resume {name}` uses it again",
            )
            assert self._store is not None
            task = asyncio.create_task(self._suspend(self._store, name, suspension))
            self._suspending.add(task)
            task.add_done_callback(self._suspending.discard)

    def part(self) -> Part:
        """The lists as a part of readiness: well when each of them is matched."""
        idle = self._idle()
        said = [f"{name}: {why}" for name, why in sorted(idle.items())]
        active = self._active()
        said.insert(0, f"{len(active)} matched, {sum(each.size for each in active)} hashes")
        if self._folder_fault:
            said.append(self._folder_fault)
        return Part("lists", False, not idle and not self._folder_fault, "; ".join(said))

    def _active(self) -> list["LoadedList"]:
        at_ms = self._clock_ms()
        active = []
        for each in self._loaded.values():
            if each.definition.has_expired(at_ms):
                if each.name not in self._expired:
                    self._expired.add(each.name)
                    log.warning("list expired: it is matched no more", list=each.name, version=each.version)
            elif each.name not in self._suspended:
                active.append(each)
        return active

    def _searched(self) -> list["LoadedList"]:
        return [each for each in self._active() if len(each.pdq)]

    def _idle(self) -> dict[str, str]:
        """Why lists are not matched, by name."""
        at_ms = self._clock_ms()
        idle = {each.name: "expired" for each in self._loaded.values() if each.definition.has_expired(at_ms)}
        idle |= {name: "suspended, it matched too much" for name in self._suspended if name in self._loaded}
        return idle | {name: fault for name, (_, fault) in self._broken.items()}

    async def _suspend(self, store: ListStore, name: str, suspension: Suspension) -> None:
        try:
            await asyncio.to_thread(store.suspend, name, suspension)
        except ListError as error:
            log.error("other gateways do not know that a list is suspended", list=name, error=str(error))

    async def _watch(self, store: ListStore) -> None:
        while True:
            await asyncio.sleep(self._settings.check_s)
            try:
                await self._look(store)
            except Exception:  # the edge of a task: the lists that are loaded go on
                log.exception("lists not looked at")

    async def _look(self, store: ListStore) -> None:
        """Take in what changed in the folder. What cannot be read leaves what is loaded in force."""
        try:
            stamps, suspended = await asyncio.to_thread(lambda: (store.stamps(), store.suspended()))
        except ListError as error:
            if str(error) != self._folder_fault:
                log.error("lists not looked at", error=str(error))
            self._folder_fault = str(error)
            return
        self._folder_fault = ""
        self._take_suspensions(suspended)
        for name in set(self._loaded) - set(stamps):
            log.info("list removed", list=name)
            self._loaded = {other: each for other, each in self._loaded.items() if other != name}
            self._rate.forget(name)
        self._broken = {name: fault for name, fault in self._broken.items() if name in stamps}
        for name, stamp in stamps.items():
            loaded, broken = self._loaded.get(name), self._broken.get(name)
            if (loaded is None or loaded.stamp != stamp) and (broken is None or broken[0] != stamp):
                await self._load(store, name, stamp)

    def _take_suspensions(self, found: Mapping[str, Stamp]) -> None:
        for name, stamp in found.items():
            if name not in self._suspended:
                log.warning("list is suspended", list=name, remedy=f"fediwarden lists resume {name}")
            self._suspended[name] = stamp
        # One of ours that is not on disk yet has no stamp.
        for name in [name for name, stamp in self._suspended.items() if stamp is not None and name not in found]:
            log.info("list is used again", list=name)
            del self._suspended[name]
            self._rate.forget(name)

    async def _load(self, store: ListStore, name: str, stamp: Stamp) -> None:
        try:
            loaded = await asyncio.to_thread(_load, store, name, stamp)
        except ListError as error:
            log.error("list not loaded, the one before stays in force", list=name, error=str(error))
            self._broken[name] = (stamp, str(error))
            return
        self._broken.pop(name, None)
        self._expired.discard(name)
        self._loaded = {**self._loaded, name: loaded}
        log.info("list loaded", list=name, version=loaded.version, hashes=loaded.size)


def _load(store: ListStore, name: str, stamp: Stamp) -> "LoadedList":
    from gateway.lists.loaded import load_list

    return load_list(store, name, stamp)
