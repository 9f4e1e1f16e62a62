"""What all pages share: the accounts, the settings, the areas there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fastapi import APIRouter
from pydantic import SecretStr
from starlette.requests import Request

from federation_audit.accounts.database import Database
from federation_audit.accounts.passwords import Passwords
from federation_audit.accounts.roles import Role
from federation_audit.accounts.sessions import HOUR_MS, Sessions
from federation_audit.accounts.users import Users
from federation_audit.assessing.assessor import Assessor, Preparation
from federation_audit.pages.cookies import Jar
from federation_audit.pages.settings import PagesSettings
from federation_audit.rescans.watching import RescanWatch
from federation_audit.settings import AuditSettings
from schemas.broker import BrokerSettings
from schemas.keyring import Keyring
from schemas.pseudonyms import Pseudonyms

_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Area:
    """A part of the pages. Its routes are for those whose role includes `least`; None: for everybody.

    It stands in the navigation unless `title` is empty. `path` is where the navigation leads. Routes take a
    `visits.Here` and are plain functions, which run in threads: they may use the database. `prepare` makes what all
    who look at one assessment are shown, so that nobody waits for it.
    """

    title: str
    path: str
    least: Role | None
    router: APIRouter
    prepare: Preparation | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the pages know of the rest: the audit's settings, Kafka and the keys of frames where there are any, what
    each rule means (`says` in the policies), our own domains, and which of them a tenant is. `origin_tokens` are those,
    by tenant, of who may tell origins; they need `broker`, and `pseudonyms` for the actors that are told of."""

    audit: AuditSettings = field(default_factory=AuditSettings)
    broker: BrokerSettings | None = None
    keyring: Keyring | None = None
    sentences: Mapping[str, str] = field(default_factory=dict)
    local_domains: frozenset[str] = frozenset()
    origin_tokens: Mapping[str, SecretStr] = field(default_factory=dict)
    pseudonyms: Pseudonyms | None = None
    tenant_domains: Mapping[str, str] = field(default_factory=dict)


class Site:
    """The pages of one process."""

    def __init__(
        self,
        settings: PagesSettings,
        database: Database,
        areas: Sequence[Area],
        passwords: Passwords | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        passwords = passwords or Passwords()
        self.settings = settings
        self.database = database
        self.surroundings = surroundings or Surroundings()
        self.assessor = Assessor(
            database,
            every_s=self.surroundings.audit.assess_every_s,
            verified_lists=self.surroundings.audit.verified_lists,
            local_domains=self.surroundings.local_domains,
            preparations=[area.prepare for area in areas if area.prepare is not None],
        )
        broker = self.surroundings.broker
        self.rescans = None if broker is None else RescanWatch(database, broker)
        self.areas = tuple(areas)
        self.jar = Jar(settings.secure)
        self.users = Users(database, passwords)
        self.sessions = Sessions(
            database,
            passwords,
            idle_ms=round(settings.session_idle_min * _MINUTE_MS),
            most_ms=round(settings.session_h * HOUR_MS),
        )

    def open_to(self, role: Role) -> list[Area]:
        """The areas in the navigation of somebody with this role."""
        return [each for each in self.areas if each.title and each.least is not None and role.includes(each.least)]


def site_of(request: Request) -> Site:
    """The site that a request came to."""
    site = request.app.state.site
    assert isinstance(site, Site)
    return site
