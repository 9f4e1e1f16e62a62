"""The evidence as JSON lines: one incident a line, confirmed or not, for who wants to count for themselves.

The shape is `fediwarden.evidence/1`: the fields of an incident in `fediwarden.report/1`, with `domain`, `tenant`,
`confirmed` and `case_link`.
"""

from collections.abc import Iterable
from typing import Final

import orjson

from federation_audit.cases import Judged
from federation_audit.exports.export import Export
from federation_audit.neutralising import http_url, one_line
from federation_audit.reports.json import incident_of

SCHEMA: Final = "fediwarden.evidence/1"


def evidence_jsonl(cases: Iterable[Judged]) -> Export:
    """Every incident of `cases`, by domain and day."""
    lines = []
    for each in sorted(cases, key=lambda each: each.case.domain):
        for incident in sorted(each.case.incidents, key=lambda incident: (incident.day, incident.actor)):
            line = {
                "schema": SCHEMA,
                "domain": each.case.domain,
                "tenant": one_line(each.case.tenant, 253),
                "confirmed": incident.confirmed,
                "case_link": http_url(incident.case_link),
                **incident_of(incident),
            }
            lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    return Export("evidence.jsonl", "application/jsonl", b"".join(lines))
