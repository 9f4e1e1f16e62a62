"""A report as JSON, for programs: the same facts as in the sentences, and every confirmed incident.

The shape is `fediwarden.report/1`; docs/reports.md has its fields. Nothing in it is an image or leads to one.
"""

from typing import Any, Final

import orjson

from federation_audit.cases import Case, Incident
from federation_audit.neutralising import one_line
from federation_audit.reports.report import posts_of

SCHEMA: Final = "fediwarden.report/1"


def as_json(case: Case) -> bytes:
    """The report on `case` as JSON (UTF-8, indented, one line feed at its end)."""
    return orjson.dumps(report_of(case), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def report_of(case: Case) -> dict[str, Any]:
    """The report on `case` as plain values."""
    median = case.removal.median
    return {
        "schema": SCHEMA,
        "domain": case.domain,
        "reported_by": one_line(case.tenant, 253),
        "from": case.since.isoformat(),
        "to": case.until.isoformat(),
        "level": {"number": int(case.level), "name": case.level.name.lower()},
        "reasons": [one_line(each, 500) for each in case.reasons],
        "counts": {
            "images": case.counts.exposure,
            "flagged": case.counts.flagged,
            "flagged_by_mistake_expected": round(case.counts.expected, 3),
            "confirmed_incidents": case.counts.confirmed,
            "accounts": case.counts.actors,
            "days": case.counts.days,
            "instances_counted_for": case.counts.tenants,
            "confirmed_incidents_listed": len(case.confirmed),
        },
        "times_the_usual_rate": None
        if case.ratio is None
        else {
            "estimate": round(case.ratio.middle, 3),
            "low": round(case.ratio.low, 3),
            "high": round(case.ratio.high, 3),
            "interval": 0.9,
        },
        "removal": {
            "posts_looked_at": case.removal.looked_at,
            "removed": case.removal.removed,
            "median_seconds": None if median is None else int(median.total_seconds()),
        },
        "incidents": [incident_of(each) for each in case.confirmed],
    }


def incident_of(incident: Incident) -> dict[str, Any]:
    """One incident as plain values."""
    return {
        "day": incident.day.isoformat(),
        "account": one_line(incident.actor, 40),
        "image_host": one_line(incident.image_host, 253),
        "communities": [one_line(each, 300) for each in incident.communities],
        "posts": list(posts_of(incident)),
        "posted_at": None if incident.posted_at is None else incident.posted_at.isoformat(timespec="seconds"),
        "judged_at": incident.judged_at.isoformat(timespec="seconds"),
        "presence": incident.presence.value,
        "sha256": [one_line(each, 64) for each in incident.sha256s],
        "pdq": [one_line(each, 64) for each in incident.pdqs],
        "rules": [
            {"name": one_line(each.name, 80), "sentence": one_line(each.sentence, 300)} for each in incident.rules
        ],
        "lists": [one_line(each, 80) for each in incident.lists],
        "confirmed_by": one_line(incident.confirmed_by, 100),
    }
