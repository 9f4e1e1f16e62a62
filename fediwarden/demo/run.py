"""The demo from its first line to Ctrl-C: starts `fediwarden up`, sends the week, has it reviewed, shows what came."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from federation_audit.store.engine import Store
from federation_audit.store.migrating import open_store
from fediwarden.children import ChildMisconfigured, ChildSpec, Stopped, Supervisor
from fediwarden.cli.tables import print_table
from fediwarden.demo.home import ADMIN, LIST, REVIEWERS, Home
from fediwarden.demo.outcome import faults_of, make_summary, read_arrived, read_findings
from fediwarden.demo.reviewers import add_accounts, review
from fediwarden.demo.sending import Outbox, Sent
from fediwarden.demo.world import IMAGES, SEED, Post, forbidden_motifs, limits_of, make_week
from fediwarden.exits import FAILED, OK
from fediwarden.settings import Settings, load_settings

_UP = "fediwarden is up."  # the line with which `up` says that all its services are ready
_FETCHING = "fetching "  # the lines of its downloads
_STOP_WITHIN_S: Final = 90.0
_LOOK_EVERY_S: Final = 0.5
_STILL_S: Final = 180.0
"""So long may nothing at all arrive in the store before we give up."""

_LOG_LINES: Final = 12


class DemoFailed(Exception):
    """The demo came to an end before its time; the message says what to look at."""


def run_demo(data_dir: Path | None, images: int | None, *, check: bool, console: Console | None = None) -> int:
    """Run the demo in `data_dir`, or in one that goes with it when there is none; the exit code.

    Until Ctrl-C, or with `check` until it is known whether all came out as it has to: 0 then, else 1. Call it in the
    main thread. It takes every FEDIWARDEN_ variable that is not about the machine out of this process's environment.
    Raises `fediwarden.demo.home.DemoRefused`, `DemoFailed`, `fediwarden.demo.sending.SendingFailed`.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    with _directory(data_dir) as folder:
        home = Home.open(folder, seed=SEED, images=images, default_images=IMAGES)
        with home.held():
            home = home.with_ports()
            home.configure()
            return asyncio.run(_Demo(home, load_settings(), console, check=check).run())


@contextmanager
def _directory(data_dir: Path | None) -> Iterator[Path]:
    if data_dir is not None:
        yield data_dir.expanduser().absolute()
        return
    with tempfile.TemporaryDirectory(prefix="fediwarden-demo-") as folder:
        yield Path(folder)


class _Demo:
    def __init__(self, home: Home, settings: Settings, console: Console, *, check: bool) -> None:
        self._home = home
        self._settings = settings
        self._console = console
        self._check = check
        self._week = make_week(home.seed, home.images)
        self._outbox = Outbox(
            gateway=settings.gateway_url,
            pages=home.pages_url,
            origins_token=home.origins_token,
            seed=home.seed,
            now=home.began_at,
        )
        self._code = OK

    async def run(self) -> int:
        """Until Ctrl-C, or with `check` until it is known how it came out; the exit code."""
        up = ChildSpec(
            name="up",
            argv=(sys.executable, "-P", "-m", "fediwarden", "up"),
            output=self._home.log_file,
            stop_within_s=_STOP_WITHIN_S,
        )
        children = Supervisor()
        with children.signals():
            try:
                self._announce()
                await asyncio.to_thread(self._home.write_list)
                children.start(up)
                await children.until(self._play(children))
                if not self._check:
                    await children.run()
            except Stopped:
                self._code = FAILED if self._check else OK
            except ChildMisconfigured as error:  # what it said is in the log, not above
                raise DemoFailed(self._ended()) from error
            finally:
                self._say("Stopping.")
                await children.stop()
        return self._code

    def _say(self, line: str = "") -> None:
        self._console.print(line, markup=False)

    def _announce(self) -> None:
        home = self._home
        self._say("fediwarden demo: a week of an invented fediverse, through the real thing.")
        self._say("The instances, the people and the images (drawn shapes) are all made up. Five-pointed stars are")
        self._say("forbidden in this world; everything else is harmless.")
        if home.is_complete:
            self._say(f"This demo ran on {home.began_at:%d %B %Y} already: what it left is shown again.")
        for sentence in limits_of(self._week, home.began_at.date(), _today()):
            self._say(f"Known beforehand: {sentence}")
        self._say(f"Starting Kafka, gateway, scanner and audit. What they say is in {home.log_file}")

    async def _play(self, children: Supervisor) -> None:
        began = time.monotonic()
        await self._await_up(children)
        self._say(f"All are up, after {time.monotonic() - began:.0f} s.")
        with open_store(self._settings.audit_database) as store:
            await asyncio.to_thread(add_accounts, store, self._home.passwords)
            if not self._home.is_complete:
                await self._send_week(store)
                done = await asyncio.to_thread(review, store, self._posts())
                self._say(
                    f"{' and '.join(REVIEWERS)} reviewed: {done.confirmed} images confirmed by both, {done.dismissed}"
                    f" dismissed as mistakes, {done.unsure} unsure; {done.waiting} wait for you."
                )
                self._home = self._home.completed()
            await asyncio.to_thread(self._conclude, store)
        self._say(f"All of it took {time.monotonic() - began:.0f} s.")
        if not self._check:
            self._say_farewell()

    async def _await_up(self, children: Supervisor) -> None:
        shown = 0
        while _UP not in (said := _read(self._home.log_file)):
            if children.exits("up"):
                raise DemoFailed(self._ended())
            downloads = [line for line in said.splitlines() if line.startswith(_FETCHING)]
            for line in downloads[shown:]:
                self._say(f"  {line}")
            shown = len(downloads)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _send_week(self, store: Store) -> None:
        self._say(
            f"The gateway has a list of {len(forbidden_motifs())} stars ({LIST}); the policy `demo` flags about 1 % of"
            " the harmless shapes, by mistake."
        )
        began = time.monotonic()
        with _progress() as progress:
            sending = progress.add_task("", total=len(self._week))
            day = None

            def show(sent: Sent) -> None:
                nonlocal day
                if sent.post.days_ago != day and (day is None or sent.post.days_ago < day):
                    day = sent.post.days_ago
                    when = (self._home.began_at - timedelta(days=day)).strftime("%a %d %b")
                    progress.update(sending, description=f"posted on {when}")
                    if not progress.console.is_terminal:
                        self._say(f"  posted on {when} ({len(self._outbox.sent)} of {len(self._week)})")
                progress.advance(sending)

            await self._outbox.send(self._week, show)
            took = time.monotonic() - began
            await self._await_store(store, progress)
        answers = ", ".join(f"{count} by {what}" for what, count in self._outbox.answers.most_common())
        refused = sum(not each.accepted for each in self._outbox.sent)
        self._say(
            f"{len(self._week)} images in {took:.0f} s ({len(self._week) / took:.1f} a second), {refused} of them"
            f" refused. Answered: {answers}."
        )

    async def _await_store(self, store: Store, progress: Progress) -> None:
        posts = self._posts()
        attributed = sum(bool(post.instance) for post in posts.values())
        task = progress.add_task("in the audit's store", total=len(posts) + attributed)
        seen, since = -1, time.monotonic()
        while True:
            arrived = await asyncio.to_thread(read_arrived, store, posts)
            there = arrived.judged + arrived.attributed
            progress.update(task, completed=there)
            if there >= len(posts) + attributed:
                return
            if there > seen:
                seen, since = there, time.monotonic()
            elif time.monotonic() - since > _STILL_S:
                raise DemoFailed(
                    f"For {_STILL_S:.0f} s nothing new came: {arrived.judged} of {len(posts)} images are judged, and"
                    f" {arrived.attributed} of {attributed} have their origin. See {self._home.log_file}"
                )
            await asyncio.sleep(_LOOK_EVERY_S)

    def _conclude(self, store: Store) -> None:
        findings = read_findings(store, self._week, self._home.began_at.date(), _today())
        self._say()
        print_table(make_summary(findings))
        self._say()
        self._say("Level 3: a recommendation to a person. 2: enough to write to its admins. 0: nothing can be said.")
        if not self._check:
            return
        faults = faults_of(store, findings, self._posts())
        for fault in faults:
            self._say(f"FAULT: {fault}")
        self._code = FAILED if faults else OK
        self._say("Not as it has to be." if faults else "All as it has to be.")

    def _posts(self) -> dict[bytes, Post]:
        """The week by the sha256 of its files."""
        if self._outbox.sent:
            return {each.sha256: each.post for each in self._outbox.sent}
        return self._outbox.redraw(self._week)

    def _say_farewell(self) -> None:
        home = self._home
        self._say()
        self._say(f"Look at it: {home.pages_url}")
        self._say(f"  {ADMIN:8}{home.passwords[ADMIN]}   (decides)")
        for name in REVIEWERS:
            self._say(f"  {name:8}{home.passwords[name]}   (reviews)")
        self._say("docs/demo.md says what there is to see. Ctrl-C stops everything; the data are in")
        self._say(str(home.folder))

    def _ended(self) -> str:
        end = "\n".join(_read(self._home.log_file).splitlines()[-_LOG_LINES:])
        return f"`fediwarden up` ended. The last lines of {self._home.log_file}:\n{end}"


def _today() -> date:
    return datetime.now(UTC).date()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:  # the child makes it
        return ""


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
