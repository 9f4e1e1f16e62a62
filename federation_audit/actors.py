"""Actors by their ActivityPub id, in the one spelling that pseudonyms are made of."""

from urllib.parse import urlsplit, urlunsplit

from schemas.domains import NotADomain, domain_of

_LONGEST = 2048


class NotAnActor(ValueError):
    """A text that is no ActivityPub id; the message says why, without it."""


def normalise_actor(actor_id: str) -> str:
    """The id (an http or https address) with its scheme and host in lower case, IDN as A-labels, no default port.

    The path stays as it is: to ActivityPub, /u/Alice and /u/alice are two. Raises `NotAnActor`.
    """
    text = actor_id.strip()
    if len(text) > _LONGEST:
        raise NotAnActor(f"an actor's id is longer than {_LONGEST} characters")
    if any(each.isspace() or not each.isprintable() for each in text):
        raise NotAnActor("an actor's id holds no spaces and no control characters")
    try:
        host = domain_of(text)
        parts = urlsplit(text)
        port = parts.port
    except (NotADomain, ValueError):
        raise NotAnActor("an actor's id is an address such as https://example.org/u/alice") from None
    scheme = parts.scheme.lower()
    own_port = "" if port is None or port == {"http": 80, "https": 443}[scheme] else f":{port}"
    return urlunsplit((scheme, host + own_port, parts.path, parts.query, ""))
