"""What can go wrong with the spool.

::

    SpoolError
    ├── SpoolUnusable      the folder cannot be made, read or locked: an admin must act
    ├── SpoolFull          no room: the bound is reached, or the disk is full
    ├── SpoolFailed        the disk failed, or the spool is not open
    ├── EntryDamaged       an entry's bytes are not those that were written; it alone is lost
    └── ParcelUnreadable   an entry is not a message that this release reads
"""

from pathlib import Path


class SpoolError(Exception):
    """Base of every error of `gateway.spool`."""


class SpoolUnusable(SpoolError):
    """The folder cannot be made, read or locked."""

    def __init__(self, folder: Path, error: OSError) -> None:
        super().__init__(
            f"the spool in {folder} cannot be used ({error.strerror or error});"
            " set gateway.spool_dir to a folder on a local disk that this user may write to"
        )


class SpoolFull(SpoolError):
    """There is no room: the bound in bytes is reached, or the disk is full. What was to be kept is not there."""


class SpoolFailed(SpoolError):
    """The disk failed, or the spool is not open. What was to be kept is not there."""


class EntryDamaged(SpoolError):
    """An entry cannot be read any more. It is logged, counted and given up."""


class ParcelUnreadable(SpoolError):
    """These bytes are not a parcel, or its message is none that this release reads."""
