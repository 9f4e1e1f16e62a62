"""Every format that cases can be exported as, by name; docs/reports.md says what each is for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from federation_audit.cases import Judged
from federation_audit.exports import activitypub, coop, evidence, fediblockhole, fediseer, lemmy, mastodon
from federation_audit.exports.coop import CoopTypes
from federation_audit.exports.export import Export


class ExportFormat(StrEnum):
    """What cases can be exported as."""

    MASTODON = "mastodon"
    FEDIBLOCKHOLE = "fediblockhole"
    LEMMY_0_19 = "lemmy-0.19"
    LEMMY_1_0 = "lemmy-1.0"
    FEDISEER = "fediseer"
    FLAG = "flag"
    EVIDENCE = "evidence"
    COOP = "coop"


@dataclass(frozen=True, slots=True)
class Exporter:
    """Who exports: `actor` is the ActivityPub id that flags are raised by, `types` what Coop calls things, `name` who
    hands over."""

    actor: str = ""
    types: CoopTypes = field(default_factory=lambda: CoopTypes("", ""))
    name: str = "fediwarden"


def make_export(
    form: ExportFormat, cases: Sequence[Judged], exporter: Exporter, *, at: datetime | None = None
) -> Export:
    """`cases` in the format `form`."""
    when = at or datetime.now(UTC)
    makers: dict[ExportFormat, Callable[[Sequence[Judged]], Export]] = {
        ExportFormat.MASTODON: mastodon.domain_blocks_csv,
        ExportFormat.FEDIBLOCKHOLE: fediblockhole.blocklist_csv,
        ExportFormat.LEMMY_0_19: lemmy.block_list,
        ExportFormat.LEMMY_1_0: lemmy.block_calls,
        ExportFormat.FEDISEER: fediseer.statements,
        ExportFormat.FLAG: lambda given: activitypub.flags_jsonl(given, exporter.actor),
        ExportFormat.EVIDENCE: evidence.evidence_jsonl,
        ExportFormat.COOP: lambda given: coop.reports_jsonl(given, exporter.types, reporter=exporter.name, at=when),
    }
    return makers[form](cases)
