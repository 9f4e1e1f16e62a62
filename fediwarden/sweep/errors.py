"""Why a sweep cannot begin or go on::

    SweepError
    ├── SourceUnknown       what is to be swept is not there, or cannot be named so
    ├── SourceRefused       it does not take our credentials: a person must act
    ├── SourceAway          no answer; the sweep goes on where it was once there is one
    ├── GatewayAway         no gateway answers; likewise
    ├── GatewayRefused      the gateway does not take our key, or cannot do what is asked
    ├── NobodyJudges        a gateway answers and no verdict comes
    ├── MissingExtra        the packages that read this kind of store are not installed
    └── WouldBeRemoved      the enforcer removes what a sweep that only reports turns up

and what befalls one object, which the sweep survives::

    ObjectError
    ├── ObjectGone          it is there no more
    ├── ObjectUnread        the store gave an error instead of its bytes, or of what was asked of it
    ├── ObjectChanged       it is not what was judged: it stays
    └── Unwanted            it is not to be judged: no image, a kind that is not read, too large
"""

import os

from fediwarden.exits import FAILED, USAGE


class SweepError(Exception):
    """A sweep cannot begin or go on; the message names the setting or option and what to do."""

    exit_code = USAGE


class SourceUnknown(SweepError):
    """What is to be swept is not there, or is not named in a way that we understand."""


class SourceRefused(SweepError):
    """The store does not take our credentials, or does not let them list."""

    exit_code = os.EX_CONFIG


class SourceAway(SweepError):
    """The store does not answer."""

    exit_code = FAILED


class GatewayAway(SweepError):
    """No gateway answers."""

    exit_code = FAILED


class GatewayRefused(SweepError):
    """The gateway does not take our key."""

    exit_code = os.EX_CONFIG


class NobodyJudges(SweepError):
    """The gateway answers, and no verdict comes."""

    exit_code = FAILED


class MissingExtra(SweepError):
    """The packages for this kind of store are not installed."""


class WouldBeRemoved(SweepError):
    """A sweep that only reports would have files removed by the enforcer."""


class ObjectError(Exception):
    """One object could not be dealt with; the sweep goes on."""


class ObjectGone(ObjectError):
    """It is there no more."""


class ObjectUnread(ObjectError):
    """The store gave an error instead of the object's bytes, or of what was asked of it."""


class ObjectChanged(ObjectError):
    """It is not any more what was judged."""


class Unwanted(ObjectError):
    """It is not to be judged. `count` is the name that the sweep counts it under."""

    def __init__(self, count: str, detail: str) -> None:
        super().__init__(detail)
        self.count = count
