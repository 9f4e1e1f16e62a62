"""Why something was not sent. Raised before anything has left; what comes after is in the record (`Sent`).

::

    NotSent
    ├── NotConfirmed     the confirmation is of something else, or was used already: look at it again
    ├── Changed          the other side is not as it was shown any more: look at it again
    ├── NothingToDo      everything is there already
    ├── SideUnreachable  no connection, or no whole answer in time
    ├── SideRefused      it does not take our key, token or password, or they may not do this
    ├── SideBusy         429: too many requests; `retry_after_s` says when, where it does
    └── SideUnexpected   an answer that the documented interface does not have
"""


class NotSent(Exception):
    """Nothing was sent; the message says why and what to do."""


class NotConfirmed(NotSent):
    """The confirmation does not belong to this plan, or was used already."""


class Changed(NotSent):
    """The other side has changed since the plan was shown."""


class NothingToDo(NotSent):
    """The other side is as it should be already."""


class SideUnreachable(NotSent):
    """No connection, or no whole answer in time."""


class SideRefused(NotSent):
    """401 or 403: our credentials are wrong, or not enough."""


class SideBusy(NotSent):
    """429: too many requests."""

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SideUnexpected(NotSent):
    """An answer that is none of the documented good ones."""
