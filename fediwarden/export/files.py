"""Files that are there whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from fediwarden.export.errors import FileTaken, FileUnusable

_OWNER_ONLY: Final = 0o600


@contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """A file (mode 0600) that gets the name `path` when all of it is written, and is gone when that fails.

    Raises `FileTaken` where `path` is there and not to be replaced (`force`), or `FileUnusable`.
    """
    _check_free(path, force=force)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _check_free(path, force=force)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise FileUnusable("write", path, error) from error


def _check_free(path: Path, *, force: bool) -> None:
    if path.exists() and not force:
        raise FileTaken(f"{path} is there already: name another file, or say --force to have it replaced")
    if path.is_dir():
        raise FileTaken(f"{path} is a folder: name a file in it")
