"""The rows of the review queue and the images behind one, as tables."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from federation_audit.pages.cells import Link, Listed, Moment, Said
from federation_audit.pages.review_words import (
    SAID_SO,
    domains,
    others_in_words,
    seen_in_words,
    sentence_of,
    stratum_in_words,
)
from federation_audit.pages.site import Site
from federation_audit.pages.table import Column, Filter, Table
from federation_audit.reviewing.closeup import Medium
from federation_audit.reviewing.prospects import Confirmed, foresee
from federation_audit.reviewing.queue import Details, Waiting
from federation_audit.statistics.assessment import Assessment
from federation_audit.store.periods import as_date

PATH = "/review"
_SCORES_MOST = 4


@dataclass(frozen=True, slots=True)
class Shown:
    """A row of the queue as a page has it. `key` is what its buttons send."""

    turn: int
    row: Waiting
    details: Details
    reasons: tuple[str, ...]
    if_confirmed: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names the row, and what of it was shown."""
        return f"{self.row.tenant}/{self.row.name.hex()}/{self.row.seen}"

    @property
    def path(self) -> str:
        """Its own page."""
        return path_of(self.row.tenant, self.row.name)

    @property
    def others(self) -> str:
        """How many others reviewed it, and whether they agree; never what they said."""
        return others_in_words(len(self.row.others), self.row.others_agree)

    @property
    def scores(self) -> list[tuple[str, float]]:
        """The highest, the first first."""
        return sorted(self.details.scores.items(), key=lambda each: (-each[1], each[0]))[:_SCORES_MOST]

    @property
    def posted(self) -> tuple[str, str] | None:
        """The first and the last day that it was posted on, where that is known."""
        days = self.details.days
        return (as_date(min(days)).isoformat(), as_date(max(days)).isoformat()) if days else None


QUEUE: Table[Shown] = Table(
    name="review",
    title="Review",
    order="turn",
    empty="Nothing waits for you. What others still have to look at is not shown here.",
    filters=(Filter("q", "Author’s instance contains"), Filter("tenant", "Tenant", hint="its name")),
    columns=(
        Column("turn", "Turn", lambda shown: shown.turn, numeric=True),
        Column("image", "Image", lambda shown: Link(shown.row.name.hex()[:12], shown.path, opens=True)),
        Column("sha256", "SHA-256", lambda shown: shown.row.name.hex()),
        Column("tenant", "Tenant", lambda shown: shown.row.tenant),
        Column("flagged", "Flagged", lambda shown: Moment(shown.row.oldest)),
        Column("posted", "Posted", lambda shown: shown.posted[0] if shown.posted else None),
        Column("authors", "Author’s instance", lambda shown: domains(sorted(shown.details.authors))),
        Column("communities", "Community on", lambda shown: domains(sorted(shown.details.communities))),
        Column("hosts", "Image host", lambda shown: domains(sorted(shown.details.hosts))),
        Column("why", "Why", lambda shown: Listed(shown.reasons)),
        Column("scores", "Scores", lambda shown: Listed([f"{name} {score:.2f}" for name, score in shown.scores])),
        Column("images", "Images", lambda shown: shown.details.images, numeric=True),
        Column("near", "Near-duplicates", lambda shown: shown.details.near, numeric=True),
        Column("accounts", "Accounts", lambda shown: shown.details.accounts, numeric=True),
        Column("others", "Reviewed by", lambda shown: shown.others),
        Column("if_confirmed", "If confirmed", lambda shown: Listed(shown.if_confirmed)),
    ),
)

MEDIA: Table[Medium] = Table(
    name="images",
    title="Images",
    order="sha256",
    empty="No image of it is left.",
    columns=(
        Column("sha256", "SHA-256", lambda medium: medium.sha256.hex()),
        Column("flagged", "Flagged", lambda medium: Moment(medium.flagged_at)),
        Column("now", "Now", lambda medium: medium.decision.value if medium.decision else None),
        Column("type", "Type", lambda medium: Said(medium.media_type) if medium.media_type else None),
        Column("bytes", "Bytes", lambda medium: medium.length or None, numeric=True),
        Column(
            "scores",
            "Scores",
            lambda medium: Listed([f"{name} {score:.2f}" for name, score in sorted(medium.scores.items())]),
        ),
        Column(
            "judged",
            "Judged",
            lambda medium: Listed([f"{each.decision} by {stratum_in_words(each.stratum)}" for each in medium.judged]),
        ),
        Column("seen", "Seen", lambda medium: Listed([Said(seen_in_words(each), cut=200) for each in medium.origins])),
        Column("others", "Reviewed by", lambda medium: medium.others, numeric=True),
        Column(
            "reviews",
            "Reviews",
            lambda medium: (
                None
                if medium.reviews is None
                else Listed([f"{each.reviewer}: {SAID_SO[each.opinion]}" for each in medium.reviews])
            ),
        ),
        Column("outcome", "Outcome", lambda medium: medium.outcome.value if medium.outcome else None),
    ),
)


def path_of(tenant: str, sha256: bytes) -> str:
    """The page of an image and of all that look like it."""
    return f"{PATH}/{tenant}/{sha256.hex()}"


def show_rows(site: Site, rows: Sequence[Waiting], details: Sequence[Details], start: int) -> list[Shown]:
    """`rows` with their `details`, as the page has them whose first row stands at `start` (from 0) of the queue."""
    surroundings = site.surroundings
    senders = {domain for each in details for domain in each.incidents}
    confirmed = _confirmed(site.assessor.newest().assessment, senders)
    return [
        Shown(
            turn=start + place + 1,
            row=row,
            details=each,
            reasons=_reasons(each, surroundings.sentences),
            if_confirmed=tuple(
                foresee(
                    row.reviewed,
                    each.incidents,
                    cluster=each.cluster,
                    confirmed=confirmed,
                    local_domains=surroundings.local_domains,
                )
            ),
        )
        for place, (row, each) in enumerate(zip(rows, details, strict=True))
    ]


def _confirmed(assessment: Assessment, instances: Collection[str]) -> dict[str, Confirmed]:
    """The confirmed incidents of those of `instances` that are assessed."""
    found = {each: assessment[each].decision for each in instances if each in assessment}
    return {
        instance: Confirmed(decision.since, frozenset((one.day, one.cluster) for one in decision.incidents))
        for instance, decision in found.items()
    }


def _reasons(details: Details, sentences: Mapping[str, str]) -> tuple[str, ...]:
    rules = {each for each in details.rules if each.removeprefix("list:") not in details.lists}
    lists = [sentence_of(f"list:{each}", sentences) for each in sorted(details.lists)]
    return (*lists, *(sentence_of(each, sentences) for each in sorted(rules)))
