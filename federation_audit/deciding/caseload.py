"""Cases with the decisions on them, as reports, exports and sendings take them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection, select

from federation_audit.assessing.assessor import Assessed
from federation_audit.assessing.case import build_case, read_tenants
from federation_audit.cases import Judged
from federation_audit.deciding.decisions import decision_in_force, decisions_in_force
from federation_audit.exports.formats import ExportFormat
from federation_audit.store.identities import TextKind
from federation_audit.store.tables import EVIDENCE, TEXTS

DAYS: Final = 90
"""How far back a case goes, unless its instance has cleaned up since."""


@dataclass(frozen=True, slots=True)
class Caseload:
    """Makes cases. `sentences` say what each rule means, `tenant_domains` which instance of ours a tenant is; `pages`
    is where others could open our pages, '' for nowhere."""

    sentences: Mapping[str, str] = field(default_factory=dict)
    tenant_domains: Mapping[str, str] = field(default_factory=dict)
    pages: str = ""

    def judged(
        self,
        connection: Connection,
        assessed: Assessed,
        domain: str,
        at: int,
        *,
        tenant: str | None = None,
        tenants: Sequence[str] | None = None,
        confirmed_only: bool = False,
    ) -> Judged:
        """The case of `domain` for one tenant of those that it sent to (the most concerned), and the decision in force
        at `at` (ms). `tenants` are those, where `read_tenants` has said so already. With `confirmed_only` its other
        incidents are counted, and not read."""
        tenants = read_tenants(connection, assessed, domain) if tenants is None else tenants
        chosen = tenant if tenant and tenant in tenants else next(iter(tenants), "default")
        case = build_case(
            connection,
            assessed,
            domain,
            since=_since(assessed, domain),
            until=assessed.assessment.at,
            tenant=chosen,
            link=f"{self.pages}/instances/{quote(domain, safe='')}" if self.pages else "",
            case_links=self._link_to if self.pages else None,
            sentences=self.sentences,
            confirmed_only=confirmed_only,
        )
        taken = decision_in_force(connection, domain, at)
        own = self.tenant_domains.get(chosen) or chosen
        return Judged(replace(case, tenant=own), None if taken is None else taken.for_case())

    def _link_to(self, tenant: str, sha256: str) -> str:
        return f"{self.pages}/review/{quote(tenant, safe='')}/{sha256}"

    def all_judged(self, connection: Connection, assessed: Assessed, domains: Iterable[str], at: int) -> list[Judged]:
        """Those of `domains`, by domain."""
        return [self.judged(connection, assessed, domain, at) for domain in sorted(domains)]

    def decided(self, connection: Connection, assessed: Assessed, at: int) -> list[Judged]:
        """Those of all decisions in force at `at`, by domain."""
        domains = [each.domain for each in decisions_in_force(connection, at)]
        return self.all_judged(connection, assessed, domains, at)

    def exported(self, connection: Connection, assessed: Assessed, form: ExportFormat, at: int) -> list[Judged]:
        """Those that `form` is made from: for the evidence all with flagged images, else those decided."""
        if form is ExportFormat.EVIDENCE:
            return self.all_judged(connection, assessed, flagged_domains(connection), at)
        return self.decided(connection, assessed, at)


def flagged_domains(connection: Connection) -> list[str]:
    """Every instance that a flagged image came from, by name."""
    query = (
        select(TEXTS.c.text)
        .where(TEXTS.c.kind == int(TextKind.INSTANCE), TEXTS.c.id.in_(select(EVIDENCE.c.instance_id)))
        .order_by(TEXTS.c.text)
    )
    return list(connection.scalars(query))


def _since(assessed: Assessed, domain: str) -> date:
    back = assessed.assessment.at - timedelta(days=DAYS)
    found = assessed.assessment.instances.get(domain)
    if found is None or found.decision.remediation is None:
        return back
    return max(back, min(found.decision.since, assessed.assessment.at))
