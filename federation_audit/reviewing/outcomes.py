"""What several reviewers' opinions of one image come to."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from sqlalchemy import Connection, select

from federation_audit.reviewing.tables import REVIEWS
from federation_audit.store.rows import chunks

CONFIRMING = 2
"""Different reviewers that make a confirmation."""


class Opinion(StrEnum):
    """What one reviewer says of a flagged image. dismiss: a false positive."""

    CONFIRM = "confirm"
    DISMISS = "dismiss"
    UNSURE = "unsure"


class Outcome(StrEnum):
    """What opinions come to.

    open: too few; confirmed: at least two reviewers, and nobody disagrees; dismissed: at least one, and nobody
    disagrees; disputed: some confirm and some dismiss, until the one side has two more than the other.
    """

    OPEN = "open"
    CONFIRMED = "confirmed"
    DISMISSED = "dismissed"
    DISPUTED = "disputed"


_OPINIONS = {opinion.value: opinion for opinion in Opinion}
_SETTLING = {Outcome.CONFIRMED: Opinion.CONFIRM, Outcome.DISMISSED: Opinion.DISMISS}


@dataclass(frozen=True, slots=True)
class Review:
    """One reviewer's opinion."""

    reviewer: str
    opinion: Opinion
    at: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A medium's reviews, the latest last, and what they come to. `settled_at` is when the last opinion that counts was
    given, ms; None while nothing is settled."""

    reviews: tuple[Review, ...]
    outcome: Outcome
    settled_at: int | None

    @classmethod
    def of(cls, reviews: Sequence[Review]) -> Self:
        """From its reviews, the latest last."""
        outcome = outcome_of(each.opinion for each in reviews)
        settled = _SETTLING.get(outcome)
        counting = [each.at for each in reviews if each.opinion is settled]
        return cls(tuple(reviews), outcome, max(counting, default=None))


def outcome_of(opinions: Iterable[Opinion]) -> Outcome:
    """What the opinions of different reviewers come to."""
    given = list(opinions)
    return outcome_from(given.count(Opinion.CONFIRM), given.count(Opinion.DISMISS))


def outcome_from(confirm: int, dismiss: int) -> Outcome:
    """What so many confirmations and dismissals come to."""
    if confirm and dismiss and abs(confirm - dismiss) < CONFIRMING:
        return Outcome.DISPUTED
    if confirm > dismiss:
        return Outcome.CONFIRMED if confirm >= CONFIRMING else Outcome.OPEN
    return Outcome.DISMISSED if dismiss else Outcome.OPEN


def read_reviewed(connection: Connection, hashes: Collection[bytes] | None = None) -> dict[tuple[str, bytes], Reviewed]:
    """Every medium that anybody reviewed (of `hashes` alone, where they are given), by tenant and sha256."""
    found: dict[tuple[str, bytes], list[Review]] = {}
    columns = (REVIEWS.c[name] for name in ("tenant", "sha256", "reviewer", "opinion", "at", "note"))
    query = select(*columns).order_by(REVIEWS.c.at, REVIEWS.c.id)
    queries = [query] if hashes is None else [query.where(REVIEWS.c.sha256.in_(part)) for part in chunks(hashes)]
    for each in queries:
        for tenant, sha256, reviewer, opinion, at, note in connection.execute(each).all():
            review = Review(reviewer, _OPINIONS[opinion], at, note)
            found.setdefault((tenant, bytes(sha256)), []).append(review)
    return {medium: Reviewed.of(reviews) for medium, reviews in found.items()}
