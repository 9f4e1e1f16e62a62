"""How to reach an instance's admins, asked from the instance itself; off unless the admin allows it.

Asked are, each by itself, so that one that fails hides no other:

- nodeinfo (``/.well-known/nodeinfo``, then the newest schema it links): ``metadata.maintainer.email`` (Misskey),
  ``metadata.nodeAdmins[].email``, ``metadata.adminAccount``, ``metadata.staffAccounts`` (Pleroma)
- Mastodon's ``/api/v2/instance``: ``contact.email``, ``contact.account.url``
- Lemmy's ``/api/v3/site`` and ``/api/v4/site``: the profiles of ``admins[].person``; Lemmy gives no mail address

What is found is somebody else's word: an address that they name is shown to a person, never written to by itself.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from federation_audit.cases import Contact, ContactKind
from federation_audit.neutralising import http_url
from federation_audit.sending.errors import NotSent
from federation_audit.sending.mail import NotAnAddress, mail_address
from federation_audit.sending.settings import ContactSettings
from schemas.domains import NotADomain, domain_of, normalise_domain
from schemas.fetching import FetchFailed, FetchRefused, fetch

CONTACTS_MOST = 20
_SCHEMAS = tuple(f"nodeinfo.diaspora.software/ns/schema/{version}" for version in ("2.1", "2.0", "1.1", "1.0"))


@dataclass(frozen=True, slots=True)
class Found:
    """The contacts of an instance, the mail addresses first; and what could not be asked, in words."""

    contacts: tuple[Contact, ...]
    failures: tuple[str, ...]


class ContactsOff(NotSent):
    """Instances are not asked for their contacts."""


async def find_contacts(
    domain: str, settings: ContactSettings, *, port: int = 443, tls: ssl.SSLContext | None = None
) -> Found:
    """Ask `domain` for its contacts. Raises `ContactsOff`, and `NotADomain` for what is none."""
    if not settings.enabled:
        raise ContactsOff(
            "instances are not asked for contacts; set audit.contacts.enabled, or give the address yourself"
        )
    name = normalise_domain(domain)
    asker = _Asker(f"https://{name}{'' if port == 443 else f':{port}'}", name, settings, tls)
    questions = (asker.nodeinfo(), asker.mastodon(), asker.lemmy("/api/v4/site"), asker.lemmy("/api/v3/site"))
    answers = await asyncio.gather(*(_collect(each) for each in questions))
    contacts = dict.fromkeys(contact for found, _ in answers for contact in found)
    first: dict[tuple[ContactKind, str], Contact] = {}
    for contact in contacts:
        first.setdefault((contact.kind, contact.value), contact)
    ordered = sorted(first.values(), key=lambda contact: contact.kind is not ContactKind.MAIL)
    return Found(tuple(ordered[:CONTACTS_MOST]), tuple(said for _, said in answers if said))


async def _collect(question: AsyncIterator[Contact]) -> tuple[list[Contact], str]:
    found: list[Contact] = []
    try:
        async for contact in question:
            found.append(contact)  # noqa: PERF401  # what came before a failure counts
    except (FetchRefused, FetchFailed) as error:
        return found, str(error)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return found, "an answer that is not as documented"
    return found, ""


class _Asker:
    """Asks one instance."""

    def __init__(self, base: str, domain: str, settings: ContactSettings, tls: ssl.SSLContext | None) -> None:
        self._base = base
        self._domain = domain
        self._limits = settings.limits
        self._tls = tls

    async def nodeinfo(self) -> AsyncIterator[Contact]:
        """Contacts in its nodeinfo."""
        links = {str(each["rel"]): str(each["href"]) for each in (await self._get("/.well-known/nodeinfo"))["links"]}
        href = next((url for schema in _SCHEMAS for rel, url in links.items() if rel.endswith(schema)), "")
        if not href:
            return
        metadata = (await self._json(href)).get("metadata") or {}
        source = "nodeinfo"
        for contact in _each(metadata.get("maintainer"), lambda one: _mail(one.get("email"), source)):
            yield contact
        for contact in _each(metadata.get("nodeAdmins"), lambda one: _mail(one.get("email"), source)):
            yield contact
        accounts = [metadata.get("adminAccount"), *(metadata.get("staffAccounts") or [])[:CONTACTS_MOST]]
        for account in accounts:
            if profile := self._profile(account, source):
                yield profile

    async def mastodon(self) -> AsyncIterator[Contact]:
        """Contacts of Mastodon, and of who speaks its API."""
        contact = (await self._get("/api/v2/instance")).get("contact") or {}
        source = "site API /api/v2/instance"
        if mail := _mail(contact.get("email"), source):
            yield mail
        if profile := self._profile((contact.get("account") or {}).get("url"), source):
            yield profile

    async def lemmy(self, path: str) -> AsyncIterator[Contact]:
        """The admins' profiles of Lemmy 0.19 (`actor_id`) and 1.0 (`ap_id`)."""
        for admin in (await self._get(path)).get("admins", [])[:CONTACTS_MOST]:
            person = admin["person"]
            if profile := self._profile(person.get("ap_id") or person.get("actor_id"), f"site API {path}"):
                yield profile

    async def _get(self, path: str) -> dict[str, Any]:
        return await self._json(self._base + path)

    async def _json(self, url: str) -> dict[str, Any]:
        async with fetch(url, self._limits, tls=self._tls) as fetched:
            content = b"".join([piece async for piece in fetched.content])
        value = orjson.loads(content)
        if not isinstance(value, dict):
            raise TypeError("no JSON object")
        return value

    def _profile(self, value: object, source: str) -> Contact | None:
        """A profile on the instance itself: that of an admin who lives elsewhere may be anybody's."""
        url = http_url(value) if isinstance(value, str) else ""
        try:
            if not url.startswith("https://") or domain_of(url) != self._domain:
                return None
        except NotADomain:
            return None
        return Contact(ContactKind.PROFILE, url, source)


def _each(value: object, make: Callable[[dict[str, Any]], Contact | None]) -> Iterable[Contact]:
    """What `make` makes of `value`, one object or a list of them."""
    many = value if isinstance(value, list) else [value]
    return [made for each in many[:CONTACTS_MOST] if isinstance(each, dict) and (made := make(each))]


def _mail(value: object, source: str) -> Contact | None:
    try:
        return Contact(ContactKind.MAIL, mail_address(value), source) if isinstance(value, str) else None
    except NotAnAddress:
        return None
