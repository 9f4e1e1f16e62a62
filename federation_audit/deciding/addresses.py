"""How the admins of an instance can be reached: given by a person, or found at the instance."""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, delete, select

from federation_audit.accounts.actions import Actor, record
from federation_audit.cases import Contact, ContactKind
from federation_audit.deciding.errors import NotDecided, NotThere
from federation_audit.deciding.tables import ADDRESSES
from federation_audit.neutralising import http_url, one_line
from federation_audit.sending.mail import NotAnAddress, mail_address
from federation_audit.store.rows import put
from schemas.domains import normalise_domain

ADDRESSES_MOST: Final = 50


def give_address(connection: Connection, actor: Actor, domain: str, text: str, *, at: int) -> Contact:
    """Keep a mail address, or the https address of a profile, that a person knows. Raises `NotDecided`."""
    name = normalise_domain(domain)
    if len(addresses_of(connection, name)) >= ADDRESSES_MOST:
        raise NotDecided(f"{ADDRESSES_MOST} addresses are enough: take one away first.", "address")
    contact = _as_contact(text, f"given by {actor.name}")
    _keep(connection, name, [contact], at)
    record(connection, actor, "address given", about=name, at=at, detail={"kind": contact.kind.value})
    return contact


def keep_found(connection: Connection, actor: Actor, domain: str, contacts: Iterable[Contact], *, at: int) -> int:
    """Keep what the instance itself named; what a person gave stays a person's. How many are new."""
    name = normalise_domain(domain)
    known = {(each.kind, each.value) for each in addresses_of(connection, name)}
    new = [each for each in contacts if (each.kind, each.value) not in known][: max(0, ADDRESSES_MOST - len(known))]
    _keep(connection, name, new, at)
    record(connection, actor, "contacts asked for", about=name, at=at, detail={"new": len(new)})
    return len(new)


def take_away_address(connection: Connection, actor: Actor, domain: str, value: str, *, at: int) -> None:
    """Forget an address. Raises `NotThere`."""
    gone = delete(ADDRESSES).where(ADDRESSES.c.domain == domain, ADDRESSES.c.value == value)
    if not connection.execute(gone).rowcount:
        raise NotThere("This address is not kept any more; reload the page.")
    record(connection, actor, "address taken away", about=domain, at=at)


def addresses_of(connection: Connection, domain: str) -> list[Contact]:
    """What is known of `domain`: mail addresses first, those given by a person before those found."""
    query = select(ADDRESSES).where(ADDRESSES.c.domain == domain)
    found = [Contact(ContactKind(row.kind), row.value, row.source) for row in connection.execute(query)]
    return sorted(
        found, key=lambda each: (each.kind is not ContactKind.MAIL, not each.source.startswith("given"), each.value)
    )


def _as_contact(text: str, source: str) -> Contact:
    url = http_url(text)
    if url.startswith("https://"):
        return Contact(ContactKind.PROFILE, url, source)
    try:
        return Contact(ContactKind.MAIL, mail_address(text), source)
    except NotAnAddress as error:
        raise NotDecided(
            f"{error}, nor the https:// address of a profile; addresses with quotes or beyond ASCII are not written to",
            "address",
        ) from error


def _keep(connection: Connection, domain: str, contacts: Iterable[Contact], at: int) -> None:
    rows = [
        {
            "domain": domain,
            "kind": each.kind.value,
            "value": each.value,
            "source": one_line(each.source, 200),
            "found_at": at,
        }
        for each in contacts
    ]
    put(connection, ADDRESSES, rows)
