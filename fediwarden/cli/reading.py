"""How far the reading of topics has come, on a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_PATIENCE_S = 1.0


@contextmanager
def progress_of_reading() -> Iterator[Callable[[str, int, int], None]]:
    """Shows on a terminal what is being read, once that takes longer than a moment."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("reading {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True)
    tasks: dict[str, Any] = {}
    began = time.monotonic()

    def show(what: str, passed: int, of: int) -> None:
        if not console.is_terminal or time.monotonic() - began < _PATIENCE_S:
            return
        progress.start()
        if what not in tasks:
            tasks[what] = progress.add_task(what, total=of)
        progress.update(tasks[what], completed=passed)

    try:
        yield show
    finally:
        if tasks:
            progress.stop()
