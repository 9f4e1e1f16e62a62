"""How many may be in hand at one time so that each gets through in time: learnt from those that did and did not."""

_WEIGHT_UP = 0.5
_WEIGHT_DOWN = 0.25
_WEIGHT_OF_A_ROUND = 2.0
"""A sample's weight in the mean, at most; with many in hand so little that a round trip of them decides."""

_SURPRISE = 3.0
"""How many times the mean a sample may weigh: one video, or one scanner that died, is no change of the capacity."""

_ROUNDING = 0.25
"""Rounded down, nearly: where two get through in time, a third is late, and yet it must be tried now and then."""


class Limit:
    """Bounds what is in hand to what gets through within `target_s` seconds.

    By Little's law, N in hand and T seconds to get through are a throughput of N / T: then N * target / T may be in
    hand. Kept is a mean of the cost T / N, because its reciprocal has none where T may be near zero. N and T are one
    image's own, so a sample stays true when the limit has changed since. Several gateways that share the scanners find
    their capacity together, though not halves of it: one that starts when all is full gets little at first.

    What passes in time while little is in hand shows the fixed cost of one, not the capacity: it teaches nothing.
    Where all in hand pass in time, one more is worth trying, whatever their fixed cost. `least` and `most` bound the
    limit, `first` is what it begins with. Where a model takes half the target for one image and `least` is more than 2,
    overload makes everything late.
    """

    def __init__(self, target_s: float, *, most: int, least: int = 1, first: int = 64) -> None:
        if target_s <= 0 or least < 1:
            raise ValueError(f"target_s must be positive and least at least 1, not {target_s} and {least}")
        self._target_s = target_s
        self._least_cost = target_s / max(most, least)
        self._most_cost = target_s / least
        self._cost = self._bounded(target_s / first)
        self._in_flight = 0

    @property
    def limit(self) -> float:
        """How many may be in hand, before rounding."""
        return self._target_s / self._cost

    @property
    def in_flight(self) -> int:
        """How many are in hand."""
        return self._in_flight

    @property
    def has_room(self) -> bool:
        """Whether one more would get through in time."""
        return self._in_flight < int(self.limit + _ROUNDING)

    def enter(self) -> "Ticket":
        """Take one more in hand, room or not."""
        self._in_flight += 1
        return Ticket(self, self._in_flight)

    def _leave(self) -> None:
        self._in_flight -= 1

    def _learn(self, among: int, seconds: float) -> None:
        cost = seconds / among
        if seconds > self._target_s:  # steeper, for it may have been given up: then it would have been later still
            cost *= seconds / self._target_s
        elif among < self.limit / 2:
            return
        else:
            cost = min(cost, self._target_s / (among + 1))
        cost = min(cost, _SURPRISE * self._cost)
        weight = min(_WEIGHT_UP if cost < self._cost else _WEIGHT_DOWN, _WEIGHT_OF_A_ROUND / among)
        self._cost = self._bounded(self._cost + weight * (cost - self._cost))

    def _bounded(self, cost: float) -> float:
        return min(max(cost, self._least_cost), self._most_cost)


class Ticket:
    """One in hand. `leave` or `drop` hands it back; the first of them counts."""

    __slots__ = ("_among", "_limit")

    def __init__(self, limit: Limit, among: int) -> None:
        self._limit: Limit | None = limit
        self._among = among

    def leave(self, seconds: float) -> None:
        """It got through, or was given up, after so many seconds: the limit learns from it."""
        limit = self._limit
        self.drop()
        if limit is not None:
            limit._learn(self._among, seconds)

    def drop(self) -> None:
        """It ended in a way that says nothing about load."""
        if self._limit is not None:
            self._limit._leave()
            self._limit = None
