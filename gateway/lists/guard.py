"""Notices a list that matches too much to be right: a poisoned one, or one of the wrong kind."""

from collections import Counter, OrderedDict
from collections.abc import Iterable


class MatchRate:
    """What share of the latest `window` different images each list matches; judged from `images` images on.

    An image counts once, however often it is sent: a refused one is asked about at every view.
    """

    def __init__(self, *, share: float, images: int, window: int) -> None:
        self._share = share
        self._images = images
        self._window = max(window, images)
        self._seen: OrderedDict[bytes, frozenset[str]] = OrderedDict()
        self._matched: Counter[str] = Counter()

    @property
    def images(self) -> int:
        """How many different images are in the window."""
        return len(self._seen)

    def matched(self, name: str) -> int:
        """How many of them this list matched."""
        return self._matched[name]

    def note(self, sha256: bytes, names: Iterable[str]) -> list[str]:
        """Take in one image and the lists that matched it. The lists among them that match too much now."""
        new = frozenset(names) - self._seen.get(sha256, frozenset())
        self._seen[sha256] = self._seen.get(sha256, frozenset()) | new
        self._matched.update(new)
        while len(self._seen) > self._window:
            _, gone = self._seen.popitem(last=False)
            self._matched.subtract(gone)
        if len(self._seen) < self._images:
            return []
        return sorted(name for name in new if self._matched[name] > self._share * len(self._seen))

    def forget(self, name: str) -> None:
        """Begin anew with this list."""
        for sha256, names in self._seen.items():
            if name in names:
                self._seen[sha256] = names - {name}
        del self._matched[name]
