"""What came of the week: read from the audit's store, assessed by its statistics, and set beside what was to be."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from federation_audit.assessing.assessor import Assessed, Assessor
from federation_audit.statistics.levels import Level
from federation_audit.store.engine import Store
from federation_audit.store.queries import read_instances
from federation_audit.store.tables import JUDGEMENTS, MEDIA
from fediwarden.demo.reviewers import read_flagged
from fediwarden.demo.world import CAST, HOME, Post, expected_levels

if TYPE_CHECKING:
    from rich.table import Table

FALSE_POSITIVES_MOST: Final = 0.05
_FEW: Final = 500
"""Among fewer harmless pictures there may be none that is flagged."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """How many of the week's images the store has judged, and how many it knows the author's instance of."""

    judged: int
    attributed: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One instance at the end. `level` is None for our own, which nobody assesses."""

    domain: str
    part: str
    images: int
    flagged: int
    confirmed: int
    level: Level | None
    expected: Level | None


def read_arrived(store: Store, posts: Mapping[bytes, Post]) -> Arrived:
    """What has arrived of `posts` (by sha256)."""
    judged = select(MEDIA.c.sha256).where(MEDIA.c.id.in_(select(JUDGEMENTS.c.media_id)))
    planned = Counter(post.instance for post in posts.values() if post.instance)
    with store.reading() as connection:
        found = sum(bytes(sha256) in posts for sha256 in connection.scalars(judged))
        exposed = {each.domain: each.now.exposed for each in read_instances(connection)}
    return Arrived(found, sum(min(exposed.get(domain, 0), count) for domain, count in planned.items()))


def read_findings(store: Store, week: Sequence[Post], today: date, at: date) -> list[Finding]:
    """Every instance of the cast at the end of day `at`, as the pages show it; the week led up to `today`."""
    assessed = Assessor(store, local_domains=(HOME,)).refresh(at)
    expected = expected_levels(week, today, at)
    with store.reading() as connection:
        counts = {each.domain: each.now for each in read_instances(connection)}
    found = []
    for instance in CAST:
        domain = instance.domain
        count = counts.get(domain)
        found.append(
            Finding(
                domain=domain,
                part=instance.part,
                images=count.exposed if count else 0,
                flagged=count.flagged if count else 0,
                confirmed=_confirmed(assessed, domain),
                level=None if domain == HOME else _level(assessed, domain),
                expected=None if domain == HOME else expected.get(domain, Level.INSUFFICIENT),
            )
        )
    return found


def faults_of(store: Store, findings: Sequence[Finding], posts: Mapping[bytes, Post]) -> list[str]:
    """What is not as it has to be: sentences, none if all is well."""
    flagged = {each.sha256 for each in read_flagged(store)}
    missed = sum(post.motif.forbidden and sha256 not in flagged for sha256, post in posts.items())
    harmless = sum(not post.motif.forbidden for post in posts.values())
    mistaken = sum(sha256 in flagged and not post.motif.forbidden for sha256, post in posts.items())
    faults = []
    if missed:
        faults.append(f"{missed} forbidden pictures were not flagged.")
    least = 0 if harmless < _FEW else 1
    if not least <= mistaken <= FALSE_POSITIVES_MOST * harmless:
        faults.append(f"{mistaken} of {harmless} harmless pictures are flagged; about 1 % should be.")
    innocent = {instance.domain for instance in CAST if instance.is_innocent}
    for each in findings:
        if each.level is not each.expected:
            faults.append(
                f"{each.domain} is at level {_shown(each.level)}; {_shown(each.expected)} was to be expected."
            )
        if each.domain in innocent and (each.level or 0) >= Level.RESTRICT:
            faults.append(f"{each.domain} is innocent, and is at level {_shown(each.level)}.")
    return faults


def make_summary(findings: Sequence[Finding]) -> "Table":
    """The findings as a table for the terminal, the highest level first."""
    from fediwarden.cli.tables import make_table

    table = make_table("instance", "level", "images", "flagged", "incidents", "what it is")
    for each in sorted(findings, key=lambda each: (-(each.level if each.level is not None else -1), each.domain)):
        counts = (str(each.images), str(each.flagged), str(each.confirmed))
        table.add_row(each.domain, _shown(each.level), *counts, each.part)
    return table


def _level(assessed: Assessed, domain: str) -> Level:
    assessment = assessed.assessment
    return assessment[domain].level if domain in assessment else Level.INSUFFICIENT


def _confirmed(assessed: Assessed, domain: str) -> int:
    return sum(
        incident.instance == domain and incident.confirmed is not None for incident in assessed.known.evidence.incidents
    )


def _shown(level: Level | None) -> str:
    return "not assessed" if level is None else f"{int(level)} {level.name.lower()}"
