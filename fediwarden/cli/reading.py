"""What commands that read the past from Kafka share: times as people write them, and how far the reading is."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import typer

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"(\d+)([smhd])")
_PATIENCE_S = 1.0


def span_ms(text: str, option: str) -> int:
    """Milliseconds of a span such as 90s, 30m, 24h or 7d. Raises `typer.BadParameter`."""
    matched = _SPAN.fullmatch(text)
    if matched is None:
        raise typer.BadParameter(f"{option}: {text!r} is no span of time; write 90s, 30m, 24h or 7d")
    return int(matched[1]) * _UNITS_S[matched[2]] * 1000


def moment_ms(text: str, now_ms: int, option: str) -> int:
    """Milliseconds since the epoch: so long ago, or an ISO 8601 time, local where it names no zone.

    Raises `typer.BadParameter`.
    """
    if _SPAN.fullmatch(text):
        return max(0, now_ms - span_ms(text, option))
    try:
        return max(0, int(datetime.fromisoformat(text).timestamp() * 1000))
    except (ValueError, OverflowError, OSError) as error:
        raise typer.BadParameter(
            f"{option}: {text!r} is no time; write 24h or 7d (ago), or a time such as 2026-11-23T18:00"
        ) from error


@contextmanager
def show_reading() -> Iterator[Callable[[str, int, int], None]]:
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
