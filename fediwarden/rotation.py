"""Rotation of the key that frames are encrypted with: one more key in the key file, in one step."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.keyring import Keyring, KeyringError


def add_key(path: Path) -> Keyring:
    """Give the key file `path` a new primary key beside those it has, and return the keyring it holds then.

    The file is replaced whole (mode 0600, its owner kept), so that a reader finds the old or the new one and a fault
    leaves the old one; two additions at a time both last. Raises `KeyringError`: the file is missing, damaged,
    readable by others, or cannot be written.
    """
    Keyring.load(path)  # says what is wrong with it before anything is written
    file = path.resolve()  # a link stays a link
    try:
        with _hold(file.parent):
            added = Keyring.load(file).with_new_key()
            _replace(file, added)
    except OSError as error:
        raise KeyringError(
            f"key file {path} cannot be replaced ({error.strerror}): the new one is made beside it, so"
            f" {file.parent} needs room and must be writable"
        ) from error
    return added


@contextmanager
def _hold(directory: Path) -> Iterator[int]:
    """Keep other additions out of `directory`; gives its descriptor."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
        os.fsync(descriptor)  # a power cut must not bring the old file back
    finally:
        os.close(descriptor)


def _replace(file: Path, keyring: Keyring) -> None:
    owner = file.stat()
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        keyring.save(temporary)
        if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):  # root, for the account of the service
            os.chown(temporary, owner.st_uid, owner.st_gid)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
