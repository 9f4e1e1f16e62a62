"""What can go wrong with a replay.

All are `ReplayError`::

    ReplayError
    ├── TargetRefused   the topic may not be written to: it is ours, or no topic's name
    ├── TargetMissing   there is no such topic, and --create was not given
    ├── TargetUnfit     the topic takes no records as large as images are
    └── NothingToReplay nothing is archived in that span of time
"""

from fediwarden.exits import FAILED, USAGE


class ReplayError(Exception):
    """Base of every error about a replay; the message says what to do."""

    exit_code = FAILED


class TargetRefused(ReplayError):
    """The topic is one of ours, or no topic can be called so."""

    exit_code = USAGE


class TargetMissing(ReplayError):
    """There is no such topic."""

    exit_code = USAGE


class TargetUnfit(ReplayError):
    """The topic as it is set up cannot hold images."""


class NothingToReplay(ReplayError):
    """No image is archived in the span."""

    exit_code = USAGE
