"""CPU time and memory of process trees, read before and after a measurement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds (user + system) so far: `own` of the named processes, `children` of all below them.

    Children that ended and were waited for are in `children`. `rss` is bytes of all of them together, shared
    pages counted in each.
    """

    own: float
    children: float
    rss: int

    @property
    def total(self) -> float:
        """CPU seconds of the processes and all below them."""
        return self.own + self.children


def usage(pids: Sequence[int]) -> Usage:
    """What the processes `pids` and everything below them used so far; one that is gone counts nothing."""
    own = children = 0.0
    rss = 0
    for pid in pids:
        try:
            root = psutil.Process(pid)
            below = root.children(recursive=True)
        except psutil.NoSuchProcess:
            continue
        for process in (root, *below):
            try:
                times = process.cpu_times()
                rss += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            if process is root:
                own += times.user + times.system
            else:
                children += times.user + times.system
            children += times.children_user + times.children_system
    return Usage(own, children, rss)


def parse_pids(words: Sequence[str]) -> dict[str, list[int]]:
    """``["gateway=12", "scanner=13,14"]`` as a mapping.

    Raises:
        ValueError: naming the word that is not NAME=PID[,PID...].
    """
    groups: dict[str, list[int]] = {}
    for word in words:
        name, equals, numbers = word.partition("=")
        try:
            pids = [int(number) for number in numbers.split(",")]
        except ValueError:
            pids = []
        if not name or not equals or not pids:
            raise ValueError(f"{word!r} is not NAME=PID[,PID...], for example scanner=4711,4712")
        groups.setdefault(name, []).extend(pids)
    return groups


def usages(groups: Mapping[str, Sequence[int]]) -> dict[str, Usage]:
    """`usage` of each group."""
    return {name: usage(pids) for name, pids in groups.items()}
