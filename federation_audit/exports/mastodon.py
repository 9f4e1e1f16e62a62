"""Mastodon: the CSV of domain blocks that its administration exports and imports, and the body of its API.

CSV, as app/controllers/admin/export_domain_blocks_controller.rb writes and reads it: header
``#domain,#severity,#reject_media,#reject_reports,#public_comment,#obfuscate``, booleans ``true`` and ``false``; at most
20,000 rows. API: POST /api/v1/admin/domain_blocks.

restrict-media is ``noop`` with ``reject_media``: the instance stays, its pictures do not come. defederate is
``suspend``, with ``reject_media`` too, so that who softens the block later still keeps the pictures out. Mastodon has
no expiry: the day is in the private comment, and the decision comes back in the audit's pages.
"""

from collections.abc import Iterable
from typing import Any, Final

from federation_audit.cases import Action, Judged
from federation_audit.exports.export import (
    COMMENT_MOST,
    Export,
    LeftOut,
    NotExpressible,
    blocked,
    csv_bytes,
    facts_line,
    host_name,
    private_line,
)
from federation_audit.neutralising import one_line

HEADER: Final = ("#domain", "#severity", "#reject_media", "#reject_reports", "#public_comment", "#obfuscate")
ROWS_MOST: Final = 20_000

_SEVERITY = {Action.RESTRICT_MEDIA: "noop", Action.DEFEDERATE: "suspend"}


def domain_blocks_csv(cases: Iterable[Judged]) -> Export:
    """The decided blocks as CSV; what Mastodon would not take is left out, by name."""
    rows: list[tuple[str, ...]] = []
    left_out: list[LeftOut] = []
    for each in blocked(cases):
        try:
            name = host_name(each.case.domain)
        except NotExpressible as error:
            left_out.append(LeftOut(each.case.domain, str(error)))
            continue
        if len(rows) == ROWS_MOST:
            left_out.append(LeftOut(each.case.domain, f"Mastodon takes at most {ROWS_MOST} rows; import in two parts"))
            continue
        rows.append((name, _SEVERITY[each.action], "true", "false", facts_line(each), "false"))
    return Export("mastodon-domain-blocks.csv", "text/csv; charset=utf-8", csv_bytes(HEADER, rows), tuple(left_out))


def domain_block(judged: Judged) -> dict[str, Any]:
    """The body of POST /api/v1/admin/domain_blocks. Raises `NotExpressible`: no block was decided, or no host name."""
    severity = _SEVERITY.get(judged.action)
    if severity is None:
        raise NotExpressible(f"the decision on {judged.case.domain} is {judged.action.value}: nothing to block")
    return {
        "domain": host_name(judged.case.domain),
        "severity": severity,
        "reject_media": True,
        "reject_reports": False,
        "private_comment": one_line(private_line(judged), COMMENT_MOST),
        "public_comment": one_line(facts_line(judged), COMMENT_MOST),
        "obfuscate": False,
    }
