"""The instance that a page is about, with all that is known of it."""

from dataclasses import dataclass
from datetime import timedelta
from itertools import dropwhile

from starlette.responses import RedirectResponse, Response

from federation_audit.assessing.assessor import Assessed
from federation_audit.assessing.history import Look, read_history
from federation_audit.assessing.traces import Deed, Traces, read_deeds, read_traces
from federation_audit.cases import Removal
from federation_audit.pages.failures import fail
from federation_audit.pages.funnel import instance_path
from federation_audit.pages.visits import Visit
from federation_audit.presence.reading import read_removal
from federation_audit.statistics.assessment import ExposurePart
from federation_audit.statistics.levels import InstanceAssessment
from federation_audit.store.facts import Role
from federation_audit.store.queries import Count, instance_id, read_instance
from schemas.domains import NotADomain, normalise_domain

_COURSE = timedelta(weeks=26)
"""So far back goes the course of an instance's numbers."""


@dataclass(frozen=True, slots=True)
class Subject:
    """All that the pages say of one instance. `found` is None where no image by an author of it was counted; `own`:
    it is one of our own, which nobody assesses. The three counts are of three roles, and are never added."""

    domain: str
    assessed: Assessed
    found: InstanceAssessment | None
    own: bool
    traces: Traces
    deeds: tuple[Deed, ...]
    author: Count
    community: Count
    host: Count
    removal: Removal

    @property
    def listed_alone(self) -> bool:
        """Whether lists of known images have found some of what it sent, and models have flagged nothing."""
        flagged = self.found is not None and self.found.triage.flagged > 0
        return not flagged and self.domain in self.assessed.known.listed

    @property
    def parts(self) -> tuple[ExposurePart, ...]:
        """The rows of exposure behind the numbers, the oldest first."""
        return () if self.found is None else self.assessed.assessment.open(self.domain)

    @property
    def looks(self) -> list[Look]:
        """Its numbers week by week, the oldest first, from when there was anything to count."""
        looks = read_history(self.assessed, self.domain, self.assessed.assessment.at - _COURSE)
        return list(dropwhile(lambda look: not look.media and not look.incidents, looks))

    @property
    def path(self) -> str:
        """Its page."""
        return instance_path(self.domain)


def find_subject(here: Visit, text: str, *, below: str = "") -> Subject | Response:
    """The instance that `text` names; a redirect where it is spelled otherwise, 404 where nobody knows it. `below` is
    the page of it that is asked for."""
    try:
        domain = normalise_domain(text)
    except NotADomain:
        return fail(here.request, 404, "This is no domain. Look for the instance in the table of instances.")
    if domain != text:
        query = here.request.url.query
        path = instance_path(domain) + (f"/{below}" if below else "")
        return RedirectResponse(f"{path}?{query}" if query else path, 308)
    assessed = here.site.assessor.newest()
    found = assessed.assessment.instances.get(domain)
    with here.site.database.reading() as connection:
        deeds = tuple(read_deeds(connection, domain))
        if found is None and not deeds and instance_id(connection, domain) is None:
            return fail(
                here.request,
                404,
                f"Nothing is known of {domain}: no image that was looked at here came from it, or lay on it.",
            )
        return Subject(
            domain=domain,
            assessed=assessed,
            found=found,
            own=domain in here.site.surroundings.local_domains,
            traces=read_traces(connection, domain, assessed.known.confirmed),
            deeds=deeds,
            author=read_instance(connection, domain, Role.AUTHOR).now,
            community=read_instance(connection, domain, Role.COMMUNITY).now,
            host=read_instance(connection, domain, Role.HOST).now,
            removal=read_removal(connection, domain),
        )
