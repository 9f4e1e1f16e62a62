"""Domains, in the one form in which all of fediwarden compares them.

Lower case, internationalised names as A-labels (``xn--``; IDNA 2008 with the mapping of UTS 46), no port, no trailing
dot, no user, IPv6 addresses in brackets. Two spellings of one instance must count as one, and a look-alike as another.
"""

import ipaddress
from urllib.parse import urlsplit

import idna

_LONGEST = 253


class NotADomain(ValueError):
    """A text that names no host; the message holds it, shortened."""


def normalise_domain(text: str) -> str:
    """The host `text` ("Example.org:443", "bücher.example", "[::1]") in our form. Raises `NotADomain`."""
    host = text.strip()
    try:
        parts = urlsplit(f"//{host}")
        name = (parts.hostname or "").rstrip(".")
        _ = parts.port
    except ValueError:
        raise NotADomain(f"{_short(text)} names no host") from None
    if not name or parts.path or parts.query or parts.fragment:
        raise NotADomain(f"{_short(text)} names no host")
    if (address := _address(name)) is not None:
        return address
    try:
        encoded = idna.encode(name, uts46=True, std3_rules=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        raise NotADomain(f"{_short(text)} names no host") from None
    if encoded.rpartition(".")[2].isdigit():  # some would take it for an IPv4 address
        raise NotADomain(f"{_short(text)} is no IP address, and no name ends in a number")
    if len(encoded) > _LONGEST:
        raise NotADomain(f"{_short(text)} is longer than {_LONGEST} characters")
    return encoded


def domain_of(url: str) -> str:
    """The host of an absolute http or https address, in our form. Raises `NotADomain`."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        raise NotADomain(f"{_short(url)} is no address") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise NotADomain(f"{_short(url)} is no http address")
    return normalise_domain(parts.netloc.rpartition("@")[2])


def _address(name: str) -> str | None:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return None
    return f"[{address.compressed}]" if address.version == 6 else str(address)


def _short(text: str) -> str:
    return ascii(text[:60])
