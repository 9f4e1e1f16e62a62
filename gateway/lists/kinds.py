"""Kinds of hashes."""

from enum import StrEnum


class HashKind(StrEnum):
    """What a hash is of: a picture's look (PDQ), or a file's bytes."""

    PDQ = "pdq"
    SHA256 = "sha256"
    MD5 = "md5"


WIDTH = {HashKind.PDQ: 32, HashKind.SHA256: 32, HashKind.MD5: 16}
"""Bytes of a hash."""

DISTANCE_MOST = 31
"""The widest radius for PDQ: its authors advise it as the loosest that still means the same picture."""
