"""Coop (roostorg/coop): an incident handed over for review, the body of POST /api/v1/report (docs/api/report.md there).

The item's type, the reporter's type and, if wanted, a policy are made in Coop first; docs/reports.md says which fields
the item's type must have. `data.images` is never set, as Coop would fetch and hash what it names, and `csam` never,
as it sends a job to the NCMEC queue: that is for a person who looked.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from federation_audit.cases import Case, Incident, Judged
from federation_audit.exports.export import Export, LeftOut
from federation_audit.neutralising import http_url, one_line
from federation_audit.reports.report import posts_of


@dataclass(frozen=True, slots=True)
class CoopTypes:
    """Ids that Coop gave: of the item type for incidents, of the user type of reporters, of a policy ('' for none)."""

    item_type: str
    reporter_type: str
    policy: str = ""


def report_body(case: Case, incident: Incident, types: CoopTypes, *, reporter: str, at: datetime) -> dict[str, Any]:
    """The body for one incident; `reporter` is who handed it over, `at` when."""
    rules = "; ".join(one_line(each.sentence, 200) for each in incident.rules)
    reason: dict[str, Any] = {"reason": one_line(rules or "flagged image", 1000)}
    if types.policy:
        reason["policyId"] = types.policy
    return {
        "reporter": {"kind": "user", "typeId": types.reporter_type, "id": one_line(reporter, 100)},
        "reportedAt": at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "reportedForReason": reason,
        "reportedItem": {
            "id": incident_id(case, incident),
            "typeId": types.item_type,
            "data": {
                "domain": case.domain,
                "day": incident.day.isoformat(),
                "account": one_line(incident.actor, 40),
                "image_host": one_line(incident.image_host, 253),
                "posts": list(posts_of(incident)),
                "sha256": [one_line(each, 64) for each in incident.sha256s],
                "pdq": [one_line(each, 64) for each in incident.pdqs],
                "rules": [one_line(each.name, 80) for each in incident.rules],
                "lists": [one_line(each, 80) for each in incident.lists],
                "confirmed_by": one_line(incident.confirmed_by, 100),
                "case_link": http_url(incident.case_link),
            },
        },
    }


def reports_jsonl(cases: Iterable[Judged], types: CoopTypes, *, reporter: str, at: datetime) -> Export:
    """The body for each confirmed incident, one a line, for who wants to hand them over otherwise."""
    lines, left_out = [], []
    for each in sorted(cases, key=lambda each: each.case.domain):
        if not types.item_type or not types.reporter_type:
            reason = "Coop's ids are not known: set audit.targets.coop.item_type and audit.targets.coop.reporter_type"
            left_out.append(LeftOut(each.case.domain, reason))
            continue
        if not each.case.confirmed:
            left_out.append(LeftOut(each.case.domain, "no incident is confirmed"))
        for incident in each.case.confirmed:
            body = report_body(each.case, incident, types, reporter=reporter, at=at)
            lines.append(orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE))
    return Export("coop-reports.jsonl", "application/jsonl", b"".join(lines), tuple(left_out))


def incident_id(case: Case, incident: Incident) -> str:
    """An id of the incident that is the same at every hand-over."""
    said = "\n".join((case.tenant, case.domain, incident.day.isoformat(), incident.actor, *sorted(incident.sha256s)))
    return f"fediwarden-{hashlib.sha256(said.encode(errors='replace')).hexdigest()[:32]}"
