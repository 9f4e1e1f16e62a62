"""What a user may do: each role may all that the one before it may."""

from enum import StrEnum


class Role(StrEnum):
    """A viewer reads; a reviewer also judges; an admin also decides, and manages users."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    ADMIN = "admin"

    def includes(self, least: "Role") -> bool:
        """Whether this role may what `least` may."""
        return _ORDER.index(self) >= _ORDER.index(least)


_ORDER = tuple(Role)
