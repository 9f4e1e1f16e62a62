"""FediBlockHole's CSV (format ``csv``): one domain a row, with the comments and flags that its parser knows.

Its parser splits at line feeds before it reads CSV, so that no cell may contain one; ours never do. With
``import_fields`` at its default it takes domain and severity alone: docs/reports.md says what to set.
"""

from collections.abc import Iterable
from typing import Final

from federation_audit.cases import Judged
from federation_audit.exports.export import Export, LeftOut, NotExpressible, blocked, csv_bytes
from federation_audit.exports.mastodon import domain_block

HEADER: Final = (
    "domain",
    "severity",
    "public_comment",
    "private_comment",
    "reject_media",
    "reject_reports",
    "obfuscate",
)


def blocklist_csv(cases: Iterable[Judged]) -> Export:
    """The decided blocks as CSV; what has no host name is left out, by name."""
    rows: list[list[str]] = []
    left_out: list[LeftOut] = []
    for each in blocked(cases):
        try:
            block = domain_block(each)
        except NotExpressible as error:
            left_out.append(LeftOut(each.case.domain, str(error)))
            continue
        rows.append([_plain(block[name]) for name in HEADER])
    return Export("fediblockhole.csv", "text/csv; charset=utf-8", csv_bytes(HEADER, rows), tuple(left_out))


def _plain(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()
