"""What `fediwarden doctor` says of each thing it looks at."""

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """How bad a finding is. Only FAIL makes the command fail."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it (empty when nothing)."""

    subject: str
    health: Health
    detail: str
    remedy: str = ""
