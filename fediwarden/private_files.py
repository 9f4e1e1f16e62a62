"""Files that hold a secret: mode 0600 from their first moment, on the disk when we say so, never written over."""

import os
import secrets
from pathlib import Path


class PrivateFileRefused(Exception):
    """A file that a secret was to be written to is there already, or cannot be written; the message says which."""

    exit_code = os.EX_CONFIG


class PrivateFileExists(PrivateFileRefused):
    """There is a file of that name already."""


def write_new(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write `content` to the new file `path`, whose folder must be there. Raises `PrivateFileRefused`."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise PrivateFileExists(f"{path} is there already, and is never written over: move it away first") from error
    except OSError as error:
        raise PrivateFileRefused(f"{path} cannot be written: {error.strerror}") from error


def replace(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put `content` in the place of what `path` holds, in one step, owner kept. Raises `PrivateFileRefused`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        owner = path.stat()
        write_new(temporary, content, mode=mode)
        if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(temporary, owner.st_uid, owner.st_gid)
        temporary.replace(path)
    except OSError as error:
        raise PrivateFileRefused(f"{path} cannot be replaced: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
