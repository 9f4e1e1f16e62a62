"""What accounts need of a database: a transaction to read in, and one to write in."""

from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection


class Database(Protocol):
    """A database that several threads may use."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that reads."""
        ...

    def writing(self, *, durably: bool = False) -> AbstractContextManager[Connection]:
        """A transaction that writes: committed at the end, rolled back by any exception. `durably`: it outlives a power
        cut right after."""
        ...
