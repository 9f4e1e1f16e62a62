"""Kinds of hashes."""

from enum import StrEnum

from gateway.lists.errors import ListError


class HashKind(StrEnum):
    """What a hash is of: a picture's look (PDQ), or a file's bytes."""

    PDQ = "pdq"
    SHA256 = "sha256"
    MD5 = "md5"


WIDTH = {HashKind.PDQ: 32, HashKind.SHA256: 32, HashKind.MD5: 16}
"""Bytes of a hash."""


def as_digest(text: str, kind: HashKind | None = None) -> bytes:
    """A hash from its hexadecimal digits. Raises `ListError`: no digits, or not as many as `kind` (None: any) has."""
    try:
        digest = bytes.fromhex(text.strip())
    except ValueError:
        raise ListError(f"{text[:80]!r} is not hexadecimal") from None
    if len(digest) not in ({WIDTH[kind]} if kind else WIDTH.values()):
        known = ", ".join(f"{each} {width * 2}" for each, width in WIDTH.items())
        raise ListError(f"a hash of {len(digest) * 2} digits; known are {known}")
    return digest


DISTANCE_MOST = 31
"""The widest radius for PDQ: its authors advise it as the loosest that still means the same picture."""
