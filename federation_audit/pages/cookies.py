"""The cookies of the pages, and the tokens that prove that a form is ours.

Over https cookies are Secure and carry the prefix __Host-: no other host, nor a page by http, can set or read them.
Over http they cannot be Secure (Safari and curl would drop them on loopback too), so that http is served on loopback
alone; `audit.pages.public_url` decides which, never a header of the request.

A form carries a token made from the cookie of its sender: HMAC-SHA256 over a fresh nonce, keyed with the session's
token, or before the login with that of the visit. Another site can make a browser send the cookie, but not read it.
"""

import hmac
import secrets
from dataclasses import dataclass
from http.cookies import SimpleCookie

_NONCE_BYTES = 16
_YEAR_S = 365 * 86_400
LOOKS = ("auto", "light", "dark")


@dataclass(frozen=True, slots=True)
class Jar:
    """Names and attributes of the cookies."""

    secure: bool

    @property
    def session(self) -> str:
        """Holds the session's token."""
        return self._prefix + "session"

    @property
    def visit(self) -> str:
        """Holds a random value for those who are not logged in: what their forms are bound to."""
        return self._prefix + "visit"

    @property
    def look(self) -> str:
        """Holds auto, light or dark."""
        return self._prefix + "look"

    @property
    def keys(self) -> str:
        """Holds off when single keys shall do nothing."""
        return self._prefix + "keys"

    def written(self, name: str, value: str, *, lasting: bool = False) -> str:
        """The value of a Set-Cookie header. Without `lasting` the cookie goes when the browser is closed."""
        age = f"; Max-Age={_YEAR_S}" if lasting else ""
        return f"{name}={value}; Path=/; HttpOnly; SameSite=Strict{age}{'; Secure' if self.secure else ''}"

    def dropped(self, name: str) -> str:
        """The value of a Set-Cookie header that takes the cookie away."""
        return f"{name}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{'; Secure' if self.secure else ''}"

    @property
    def _prefix(self) -> str:
        return "__Host-fediwarden-" if self.secure else "fediwarden-"


def read_cookies(header: str) -> dict[str, str]:
    """The cookies of a request's header; one that cannot be read counts as none."""
    cookies: dict[str, str] = {}
    for part in header.split(";"):
        name, found, value = part.strip().partition("=")
        if found and name and name not in cookies:  # the first wins: it has the longest path
            cookies[name] = SimpleCookie().value_decode(value)[0] if value.startswith('"') else value
    return cookies


def make_token(key: str) -> str:
    """A token for one form of the visitor whose cookie holds `key`."""
    nonce = secrets.token_urlsafe(_NONCE_BYTES)
    return f"{nonce}.{_mac(key, nonce)}"


def check_token(key: str, token: str) -> bool:
    """Whether `token` was made for `key`."""
    nonce, _, mac = token.partition(".")
    return bool(key) and hmac.compare_digest(mac.encode("utf-8", "replace"), _mac(key, nonce).encode())


def _mac(key: str, nonce: str) -> str:
    return hmac.digest(key.encode("utf-8", "replace"), b"form " + nonce.encode("utf-8", "replace"), "sha256").hex()
