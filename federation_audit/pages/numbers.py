"""The numbers of an assessed instance, each with what it says."""

import math
from dataclasses import dataclass

from federation_audit.cases import Removal
from federation_audit.pages import figures
from federation_audit.pages.cells import Cell, Interval, Link, Mark, Share
from federation_audit.pages.funnel import TONES, level_word
from federation_audit.pages.subject import Subject
from federation_audit.pages.table import Column, Table
from federation_audit.statistics.levels import InstanceAssessment


@dataclass(frozen=True, slots=True)
class Number:
    """A number with what it means, and a link to the rows behind it where there are any."""

    name: str
    value: Cell
    says: str
    rows: Cell = ""


NUMBERS: Table[Number] = Table(
    name="numbers",
    title="Numbers",
    order="",
    empty="No image by an author of this instance has been counted.",
    columns=(
        Column("number", "Number", lambda row: row.name),
        Column("value", "Value", lambda row: row.value, numeric=True),
        Column("says", "What it says", lambda row: row.says),
        Column("rows", "Behind it", lambda row: row.rows),
    ),
)


def level_mark(found: InstanceAssessment | None) -> Mark:
    """The level as a mark."""
    return Mark("not assessed") if found is None else Mark(level_word(found.level), TONES[found.level])


def is_comparable(of: InstanceAssessment) -> bool:
    """Whether it sent enough images, and enough is known of others, to say how many times the usual it is flagged."""
    return of.context.prior.learnt and of.triage.media >= of.context.rules.least_media


def show_ratio(of: InstanceAssessment) -> Cell:
    """How many times the usual it is flagged, with the interval; None where that cannot be said."""
    return Interval(of.triage.ratio, of.triage.low, of.triage.high) if is_comparable(of) else None


def show_chance(of: InstanceAssessment) -> Cell:
    """How probably that is more than twice; None where it cannot be said."""
    return Share(of.triage.chance, coarse=True) if is_comparable(of) else None


def find_numbers(subject: Subject) -> list[Number]:
    """The numbers of an assessed instance, each with what it says and where its rows are."""
    found, path = subject.found, subject.path
    if found is None:
        return []
    triage, decided, context = found.triage, found.decision, found.context
    rules = context.rules
    exposure = Link("by week", f"{path}/exposure")
    return [
        Number("Level", level_mark(found), "How far the evidence goes; the sentences above say why."),
        Number("Images", triage.media, "Distinct images by its authors, once for each that judged them.", exposure),
        Number(
            "Flagged",
            triage.flagged,
            "One account's one picture on one day counts once. Machines err: a flag proves nothing.",
            exposure,
        ),
        Number("Usual", triage.expected, "So many flags an ordinary instance with these images has.", exposure),
        Number(
            "Times the usual",
            show_ratio(found),
            f"Lately: what is {rules.half_life_days:.0f} days old counts half. With a probability of"
            f" {rules.interval * 100:.0f} % it lies between the two ends.",
            exposure,
        ),
        Number(
            f"More than {rules.ratio:g} times the usual",
            show_chance(found),
            f"How probable that is; above {rules.watch_chance * 100:.0f} % it is worth a look.",
        ),
        Number(
            "Confirmed incidents",
            len(decided.incidents),
            f"By two reviewers or a verified list, since {decided.since}, when evidence last began anew.",
            Link("incidents", f"{path}/incidents"),
        ),
        Number(
            "Of them independent",
            len(decided.independent),
            "Those that share no account, day or picture: one bad account is no bad instance.",
            Link("accounts", f"{path}/accounts"),
        ),
        Number(
            "Tolerable", decided.tolerable, "Confirmed incidents that an innocent one of its size may have.", exposure
        ),
        Number(
            "e-value",
            decided.e_value,
            f"Odds against its innocence, as a bet would pay: level 2 asks for {rules.restrict_e:g},"
            f" level 3 for {_asked(context.asked_log_e)} now.",
        ),
        Number("Removed at the origin", _removed(subject.removal), _says_removed(subject.removal)),
    ]


def _removed(removal: Removal) -> Cell:
    """How many of the posts that were looked at again were gone; None where nobody has looked."""
    return f"{removal.removed:,} of {removal.looked_at:,}" if removal.looked_at else None


def _says_removed(removal: Removal) -> str:
    if not removal.looked_at:
        return "Whether posts of confirmed incidents are still there: nobody has looked."
    if removal.median is None:
        return "Posts of confirmed incidents that were gone when last looked at. Half or more were still there."
    return (
        "Posts of confirmed incidents that were gone when last looked at;"
        f" half of them within {figures.span(removal.median.total_seconds())}."
    )


def _asked(log_e: float) -> str:
    return "more than anyone has" if math.isinf(log_e) else figures.decimal(math.exp(min(log_e, 700.0)))
