"""What can go wrong with an export or an import.

All are `ExportError`::

    ExportError
    ├── FileTaken        the file is there already, and --force was not given
    ├── ParquetMissing   pyarrow is not installed
    ├── FileUnusable     it cannot be read or written
    └── ImportInvalid    a line of it is not what it must be
"""

from pathlib import Path

from fediwarden.exits import FAILED, USAGE
from schemas.extras import install_command


class ExportError(Exception):
    """Base of every error about an export or an import; the message says what to do."""

    exit_code = FAILED


class FileTaken(ExportError):
    """Nothing is overwritten unasked."""

    exit_code = USAGE


class ParquetMissing(ExportError):
    """The extra is not installed."""

    exit_code = USAGE

    def __init__(self) -> None:
        super().__init__(f"parquet needs pyarrow, which is not installed: {install_command('parquet')}")


class FileUnusable(ExportError):
    """The operating system refuses it."""

    def __init__(self, what: str, path: Path, error: OSError) -> None:
        super().__init__(f"cannot {what} {path}: {error.strerror or error}")


class ImportInvalid(ExportError):
    """Line `line` of a file is wrong, in `field` where one is to blame. Nothing of the file was published."""

    def __init__(self, path: Path, line: int, what: str, *, field: str = "", remedy: str) -> None:
        about = f"field {field}: " if field else ""
        super().__init__(f"{path}, line {line}: {about}{what}; {remedy}. Nothing was imported")
        self.line = line
        self.field = field
