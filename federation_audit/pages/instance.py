"""One instance: its level and why, its numbers, and what stands behind each of them."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import idna
from fastapi import APIRouter
from markupsafe import Markup
from starlette.responses import Response

from federation_audit.pages import figures
from federation_audit.pages.behind import BEHIND, Shown, Week, find_weeks
from federation_audit.pages.numbers import NUMBERS, find_numbers, level_mark
from federation_audit.pages.people import people_of
from federation_audit.pages.plots import Bar, Line, Spot, draw_bars, draw_course
from federation_audit.pages.subject import Subject, find_subject
from federation_audit.pages.table import PAGE_ROWS, Links, Rows, Selection, Table, take
from federation_audit.pages.visits import Here


def add_instance_routes(router: APIRouter) -> None:
    """The page of one instance, and those of the rows behind its numbers."""

    @router.get("/instances/{domain}", response_model=None)
    def show(here: Here, domain: str) -> Response:
        subject = find_subject(here, domain)
        if isinstance(subject, Response):
            return subject
        numbers = find_numbers(subject)
        selection = here.select(NUMBERS)
        weeks = find_weeks(subject)
        return here.show(
            "instance.html",
            _named(NUMBERS, subject),
            selection,
            _part(numbers, selection),
            subject=subject,
            written=_written(subject.domain),
            mark=level_mark(subject.found),
            plots=_week_plots(weeks) + _course_plots(subject),
            behind=[_behind(subject, name) for name in BEHIND if name not in ("exposure", "course")],
            people=people_of(here, subject.domain),
        )

    def add(name: str, shown: Shown) -> None:
        table, rows_of = shown

        @router.get(f"/instances/{{domain}}/{name}", response_model=None)
        def show_rows(here: Here, domain: str) -> Response:
            subject = find_subject(here, domain, below=name)
            if isinstance(subject, Response):
                return subject
            selection = here.select(table)
            rows = take(rows_of(subject), table, selection, lambda _: True)
            return here.show("instance_rows.html", _named(table, subject), selection, rows, subject=subject, what=name)

    for name, shown in BEHIND.items():
        add(name, shown)


def _behind(subject: Subject, name: str) -> tuple[str, Table[Any], Rows[Any], Links]:
    """The first part of the rows behind numbers, for the page of the instance; its links lead to their own page."""
    table, rows_of = BEHIND[name]
    selection = Selection(table.order.removeprefix("-"), table.order.startswith("-"), 1, PAGE_ROWS, {})
    rows = take(rows_of(subject), table, selection, lambda _: True)
    return name, table, rows, Links(f"{subject.path}/{name}", table, selection)


def _named(table: Table[Any], subject: Subject) -> Table[Any]:
    """The table with the instance in its title and in the names of its files."""
    file = re.sub(r"[^a-z0-9.-]+", "-", subject.domain).strip("-")
    return replace(table, name=f"{file}-{table.name}", title=f"{table.title} of {subject.domain}")


def _part(rows: Sequence[Any], selection: Selection) -> Rows[Any]:
    return Rows(rows[selection.start : selection.start + selection.size], len(rows))


def _week_plots(weeks: Sequence[Week]) -> list[tuple[str, str, Markup]]:
    """Title, what it means, and the plot."""
    wanted: tuple[tuple[str, str, str, Callable[[Week], int]], ...] = (
        ("Images", "plain", "that its authors sent", lambda week: week.images),
        ("Flagged", "warn", "by machines, right or wrong", lambda week: week.flagged),
        ("Confirmed incidents", "bad", "by two reviewers or a verified list", lambda week: week.confirmed),
    )
    found = []
    for title, tone, meaning, value in wanted:
        bars = [Bar(str(week.first), value(week), f"week from {week.first}: {value(week):,}") for week in weeks]
        total = sum(int(bar.value) for bar in bars)
        says = f"{total:,} in {len(bars)} weeks."
        found.append((title, meaning, draw_bars(f"{title} by week", says, bars, tone=tone)))
    return found


def _course_plots(subject: Subject) -> list[tuple[str, str, Markup]]:
    """The interval and the e-value in time: title, what it means, and the plot."""
    looks = subject.looks
    if subject.found is None or not looks:
        return []
    context = subject.found.context
    plots = []
    ratios = [Spot(each.at, each.ratio, each.low, each.high) for each in looks if each.ratio is not None]
    if ratios:
        says = f"Lately {figures.decimal(ratios[-1].value)} times the usual, over {len(ratios)} weeks."
        lines = [Line(1.0, "usual"), Line(context.rules.ratio, f"{context.rules.ratio:g} times")]
        plot = draw_course("Times the usual, with its interval", says, ratios, lines=lines)
        plots.append(("Times the usual", f"with its {context.rules.interval * 100:.0f} % interval", plot))
    values = [Spot(each.at, each.e_value) for each in looks]
    lines = [Line(context.rules.restrict_e, "level 2")]
    if not math.isinf(context.asked_log_e) and context.asked_log_e > math.log(context.rules.restrict_e * 1.5):
        lines.append(Line(math.exp(min(context.asked_log_e, 700.0)), "level 3"))
    says = f"Lately {figures.decimal(values[-1].value)}, over {len(values)} weeks. It begins anew with each quarter."
    plot = draw_course("e-value", says, values, lines=lines, logarithmic=True)
    plots.append(("e-value", "begins anew with each quarter", plot))
    return plots


def _written(domain: str) -> str:
    """The domain as people write it, where that is something else; "" where it is not."""
    try:
        text = str(idna.decode(domain)) if "xn--" in domain else ""
    except (idna.IDNAError, UnicodeError):
        return ""
    return "" if text == domain else text
