"""Shows how far downloads are: bars on a terminal, a line at every quarter elsewhere."""

from collections.abc import Callable
from threading import Lock
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Report = Callable[[int, int], None]
"""Told the bytes that are there and the bytes there will be. May be called from any thread."""

_QUARTERS = 4


class Downloads:
    """Shows any number of downloads at once; nothing appears for what is there already."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars: Progress | None = None
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def track(self, name: str) -> Report:
        """A callback that shows a download under `name`, from its first call with something left to do."""
        return self._draw_bar(name) if self._console.is_terminal else self._write_lines(name)

    def _draw_bar(self, name: str) -> Report:
        task: TaskID | None = None

        def report(done: int, total: int) -> None:
            nonlocal task
            with self._lock:
                if task is None:
                    if done >= total:
                        return
                    task = self._start_bars().add_task(name, total=total)
                assert self._bars is not None
                self._bars.update(task, completed=done, total=total)

        return report

    def _start_bars(self) -> Progress:
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bars.start()
        return self._bars

    def _write_lines(self, name: str) -> Report:
        shown = -1

        def report(done: int, total: int) -> None:
            nonlocal shown
            with self._lock:
                quarter = _QUARTERS * done // max(total, 1)
                if quarter <= shown or (shown < 0 and done >= total):
                    return
                shown = quarter
                self._console.print(f"fetching {name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB", highlight=False)

        return report
