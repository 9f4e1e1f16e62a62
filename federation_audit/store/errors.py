"""What can go wrong between us and the audit store.

::

    StoreError
    ├── StoreUnavailable   the database does not answer, or is locked: try again later
    ├── StoreRefused       rights, credentials, a file that cannot be written: an admin must act
    ├── SchemaTooNew       a newer fediwarden has migrated it
    ├── SchemaTooOld       nothing has migrated it yet: run `fediwarden audit record`
    ├── LeaseTaken         another process writes
    └── RebuildWanted      somebody asked for a rebuild while we write
"""


class StoreError(Exception):
    """Base of every error of `federation_audit.store`."""


class StoreUnavailable(StoreError):
    """The database does not answer; waiting may help."""


class StoreRefused(StoreError):
    """The database lets us in, or at its tables, no further; a person must act."""


class SchemaTooNew(StoreError):
    """The store's tables are those of a newer fediwarden."""


class SchemaTooOld(StoreError):
    """The store has no tables yet, or those of an older fediwarden."""


class LeaseTaken(StoreError):
    """Another process has the right to write; the message names it."""


class RebuildWanted(StoreError):
    """The store is to be made anew from the topics before anything else is written."""
