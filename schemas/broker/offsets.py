"""Which offset of a partition may be committed when work finishes out of order."""

from collections import deque


class OffsetTracker:
    """The contiguous front of one partition.

    Records are handed out in offset order (gaps are normal: compacted or deleted records) and `finish` in any
    order. `committable` is the offset after the last record before which nothing is unfinished: committing it can
    neither lose a record nor pass one over.
    """

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._open: set[int] = set()
        self._committable: int | None = None
        self._committed: int | None = None

    def hand_out(self, offset: int) -> None:
        """Note that the record at `offset` is being worked on. Raises ValueError if offsets go back."""
        if self._order and offset <= self._order[-1]:
            raise ValueError(f"offset {offset} was handed out after {self._order[-1]}")
        self._order.append(offset)
        self._open.add(offset)

    def finish(self, offset: int) -> None:
        """Note that the record at `offset` is done. Finishing it twice, or one never handed out, changes nothing."""
        self._open.discard(offset)
        while self._order and self._order[0] not in self._open:
            self._committable = self._order.popleft() + 1

    @property
    def committable(self) -> int | None:
        """The offset to commit, or None where nothing new is finished since the last `note_committed`."""
        return None if self._committable == self._committed else self._committable

    @property
    def front(self) -> int | None:
        """The offset of the first record that is not done, or after the last that is; None before any."""
        return self._order[0] if self._order else self._committable

    @property
    def unfinished(self) -> int:
        """How many records are being worked on."""
        return len(self._open)

    def note_committed(self, offset: int) -> None:
        """Note that the cluster took `offset`."""
        self._committed = offset
