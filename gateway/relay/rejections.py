"""Which rejected image a failed request was about.

pict-rs says that its validator refused a file, but not which; the gateway's ledger (topic answers) says which hash was
rejected when, but not for whom. The two are matched by time, and only where no other match is thinkable: within the
request's duration exactly one hash was rejected for the tenant, and no other failed request could be about it. Requests
are never held up for this; each is looked at some seconds after its end, when the ledger's entry has come.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from schemas.messages import AnswerGiven

SLACK_MS = 500
"""How far the clocks of the gateway and the relay may be apart."""

_KEPT_MS = 15 * 60_000
_KEPT_MOST = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """A request that failed because a file was rejected, between `began_at` and `ended_at` (ms).

    `about` is what two requests share that failed for the same image: its URL; None where nothing is shared. `settle`
    gets the answer that told pict-rs so, or None where it cannot be told.
    """

    tenant: str
    began_at: int
    ended_at: int
    about: str | None
    settle: Callable[[AnswerGiven | None], None]

    def may_be(self, answer: AnswerGiven) -> bool:
        """Whether the answer fell into this request's time."""
        return (
            answer.tenant == self.tenant and self.began_at - SLACK_MS <= answer.answered_at <= self.ended_at + SLACK_MS
        )


class Rejections:
    """The lately rejected, and the failures that wait for `settle_s` seconds to be matched with them."""

    def __init__(self, *, settle_s: float) -> None:
        self._settle_s = settle_s
        self._answers: deque[AnswerGiven] = deque(maxlen=_KEPT_MOST)
        self._failures: deque[Failure] = deque(maxlen=_KEPT_MOST)
        self._waiting: dict[Failure, asyncio.TimerHandle] = {}

    def observe(self, answer: AnswerGiven) -> None:
        """An entry of the ledger."""
        if answer.accepted is not False:
            return
        while self._answers and self._answers[0].answered_at < answer.answered_at - _KEPT_MS:
            self._answers.popleft()
        self._answers.append(answer)

    def note(self, failure: Failure) -> None:
        """A request has failed; `failure.settle` is called once, later."""
        while self._failures and self._failures[0].ended_at < failure.ended_at - _KEPT_MS:
            self._failures.popleft()
        self._failures.append(failure)
        timer = asyncio.get_running_loop().call_later(self._settle_s, self._settle, failure)
        self._waiting[failure] = timer

    def give_up(self) -> None:
        """Settle those that wait without a match: the process ends, and the ledger's entries may not all be here."""
        for failure, timer in self._waiting.items():
            timer.cancel()
            failure.settle(None)
        self._waiting.clear()

    def match(self, failure: Failure) -> AnswerGiven | None:
        """The one answer that it can be about, or None."""
        fitting = [answer for answer in self._answers if failure.may_be(answer)]
        if len({answer.sha256 for answer in fitting}) != 1:
            return None
        rivals = (
            other
            for other in self._failures
            if other is not failure and (failure.about is None or other.about != failure.about)
        )
        if any(rival.may_be(answer) for rival in rivals for answer in fitting):
            return None
        return fitting[0]

    def _settle(self, failure: Failure) -> None:
        del self._waiting[failure]
        failure.settle(self.match(failure))
