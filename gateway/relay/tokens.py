"""Who uploads, by the token that Lemmy forwards: read, not kept, not logged.

Lemmy has checked the token before it forwards an upload, so its signature is not checked here (the secret is in Lemmy's
database). As Lemmy does, a bearer token goes before the cookie ``jwt``.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import NamedTuple

import orjson

_TOKEN_MOST = 8192
_SUB_MOST = 64


class Claims(NamedTuple):
    """What a token says: the user's number on its instance, and the instance ("" where it does not say)."""

    sub: str
    issuer: str


def claims_of(headers: Iterable[tuple[bytes, bytes]]) -> Claims | None:
    """The claims of the one token in a request's `headers` (names in lower case).

    None where there is none, where there are two that differ, or where it is no JSON web token.
    """
    bearers: set[bytes] = set()
    cookies: set[bytes] = set()
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                bearers.add(token.strip())
        elif name == b"cookie":
            pairs = (each.strip().partition(b"=") for each in value.split(b";"))
            cookies.update(token for cookie, _, token in pairs if cookie == b"jwt")
    tokens = bearers or cookies
    return _read(tokens.pop()) if len(tokens) == 1 else None


def _read(token: bytes) -> Claims | None:
    parts = token.split(b".")
    if len(parts) != 3 or len(token) > _TOKEN_MOST:
        return None
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    if not isinstance(claims, dict):
        return None
    sub, issuer = claims.get("sub"), claims.get("iss", "")
    if isinstance(sub, int) and not isinstance(sub, bool):
        sub = str(sub)
    if not isinstance(sub, str) or not 0 < len(sub) <= _SUB_MOST or not isinstance(issuer, str):
        return None
    return Claims(sub, issuer)
