"""A place that Lemmy's tables know of, as an origin that says no more than they do."""

import math

from federation_audit.actors import NotAnActor, normalise_actor
from federation_audit.lemmy.queries import Row
from schemas.domains import NotADomain, domain_of, normalise_domain
from schemas.messages import (
    Confidence,
    OriginAuthor,
    OriginCommunity,
    OriginHost,
    OriginMethod,
    OriginMoment,
    OriginObserved,
    Place,
)
from schemas.pseudonyms import Pseudonyms

_URL_MOST = 2048
_COMMUNITY_MOST = 1024
_CLOCKS_DIFFER_MS = 300_000


def make_origin(
    row: Row,
    *,
    tenant: str,
    sha256: bytes,
    alias: str,
    url: str,
    received_at: int,
    observed_at: int,
    observer: str,
    pseudonyms: Pseudonyms,
) -> OriginObserved:
    """The origin that `row` tells of, for the image of that name (at least one of `sha256`, `alias`, `url`).

    Author and community are Lemmy's own record and certain, unless a text merely holds the address of a remote image,
    which may be a link to it: likely. The moment is certain for an author of this Lemmy, whose clock it is, likely for
    others, and unknown where it lies in the future. What cannot be read as a domain or an address is unknown. The
    pseudonym is of the quarter in which the image came (`received_at`), so that looking again gives the same.
    Banners and icons of a community or an instance name that as their `post_url`: they would be one place else.
    """
    confidence = Confidence.CERTAIN if row.exact else Confidence.LIKELY
    return OriginObserved(
        tenant=tenant,
        sha256=sha256,
        alias=alias,
        url=url,
        place=Place(row.place),
        method=OriginMethod.DATABASE,
        host=_host(url),
        author=_author(row, confidence, pseudonyms, received_at),
        community=_community(row, confidence),
        moment=_moment(row, observed_at),
        post_url=_address(row.post_url, _URL_MOST),
        observed_at=observed_at,
        observer=observer,
    )


def _host(url: str) -> OriginHost | None:
    try:
        return OriginHost(domain=domain_of(url), confidence=Confidence.CERTAIN)
    except NotADomain:
        return None


def _author(row: Row, confidence: Confidence, pseudonyms: Pseudonyms, received_at: int) -> OriginAuthor | None:
    """An actor lives where its id says; only where that cannot be read, Lemmy's word for its instance counts."""
    if row.author_id is None and row.author_domain is None:
        return None
    instance = _domain_of_id(row.author_id) or _domain(row.author_domain)
    if instance is None:
        return None
    try:
        actor = normalise_actor(row.author_id or "")
    except NotAnActor:
        return OriginAuthor(instance=instance, confidence=confidence)
    pseudonym = pseudonyms.pseudonym(actor, at_ms=received_at)
    if pseudonym is None:
        return OriginAuthor(instance=instance, confidence=confidence)
    return OriginAuthor(instance=instance, pseudonym=pseudonym.value, key_id=pseudonym.key_id, confidence=confidence)


def _community(row: Row, confidence: Confidence) -> OriginCommunity | None:
    instance = _domain_of_id(row.community_id) or _domain(row.community_domain)
    if instance is None:
        return None
    return OriginCommunity(
        instance=instance, actor_id=_address(row.community_id, _COMMUNITY_MOST), confidence=confidence
    )


def _moment(row: Row, now: int) -> OriginMoment | None:
    if row.published_s is None or not math.isfinite(row.published_s):
        return None
    at = round(row.published_s * 1000)
    if not 0 <= at <= now + _CLOCKS_DIFFER_MS:
        return None
    return OriginMoment(at=at, confidence=Confidence.CERTAIN if row.author_local else Confidence.LIKELY)


def _domain_of_id(actor_id: str | None) -> str | None:
    try:
        return domain_of(actor_id or "")
    except NotADomain:
        return None


def _domain(text: str | None) -> str | None:
    try:
        return normalise_domain(text or "")
    except NotADomain:
        return None


def _address(text: str | None, most: int) -> str:
    """The address, "" where it is none, too long, or holds what no address holds."""
    if text is None or len(text) > most or not text.isprintable() or " " in text:
        return ""
    return text if _domain_of_id(text) else ""
