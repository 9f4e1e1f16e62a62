"""What can be wrong with a list.

All are `ListError`::

    ListError
    ├── ListInvalid        what a source gave is no list: wrong kind, a wrong line, too long
    ├── ListDamaged        a stored list cannot be read, or is not what was written
    ├── ListUnknown        no list has this name
    ├── ListExists         a list has this name already
    └── SourceFailed       a source cannot be reached, or refuses
"""


class ListError(Exception):
    """A list cannot be added, refreshed or read; the message names the place, the fault and the remedy."""


class ListInvalid(ListError):
    """What a source gave is no list of hashes. `line` counts from 1, 0 where there is none."""

    def __init__(self, source: str, what: str, *, line: int = 0, remedy: str) -> None:
        super().__init__(f"{source}{f', line {line}' if line else ''}: {what}; {remedy}")
        self.line = line


class ListDamaged(ListError):
    """A stored list is not what was written."""


class ListUnknown(ListError):
    """No list has this name."""


class ListExists(ListError):
    """A list has this name already."""


class SourceFailed(ListError):
    """A source cannot be reached, or refuses."""
