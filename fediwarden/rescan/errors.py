"""What can go wrong with a rescan.

All are `RescanError`::

    RescanError
    ├── RescanInvalid       what is asked cannot be done: an unknown model, a span without images, no such list
    ├── RescanUnknown       no rescan has this id
    ├── RescanBusy          another rescan is at work
    ├── RescanNotFinished   it is still being judged: nothing can be made of it yet
    ├── RescanStateWrong    it stands where this cannot be done: finished, applied, cancelled
    └── TooManyRemovals     more would be removed than is allowed without being asked
"""

from fediwarden.exits import FAILED, TRY_AGAIN, USAGE


class RescanError(Exception):
    """Base of every error about a rescan; the message says what to do."""

    exit_code = FAILED


class RescanInvalid(RescanError):
    """What is asked cannot be done. `field` names the option or setting that is wrong."""

    exit_code = USAGE

    def __init__(self, field: str, what: str, *, remedy: str) -> None:
        super().__init__(f"{field}: {what}; {remedy}")
        self.field = field
        self.remedy = remedy


class RescanUnknown(RescanError):
    """No rescan has this id."""

    exit_code = USAGE


class RescanBusy(RescanError):
    """Another rescan is at work, and two at once would not say what changes what."""

    exit_code = TRY_AGAIN


class RescanNotFinished(RescanError):
    """Not everything in its spans is judged yet."""

    exit_code = TRY_AGAIN


class RescanStateWrong(RescanError):
    """The rescan stands where this cannot be done."""


class TooManyRemovals(RescanError):
    """More images would be removed than the settings, the rescan or the command allow."""
