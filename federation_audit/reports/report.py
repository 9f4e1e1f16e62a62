"""A case as a report: sections of sentences, which `text` and `markdown` then set.

Only confirmed incidents go into a report. Text of strangers (names, addresses) is brought on one line here; what else a
format has to escape, it escapes.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from federation_audit.cases import Case, Incident, Presence
from federation_audit.neutralising import http_url, one_line
from federation_audit.reports.wording import ENGLISH, Plural, Wording

INCIDENTS_MOST = 50
"""Incidents that are written out; all are in the JSON."""

# A path that ends as files of pictures do, or lies where Lemmy's and Mastodon's do.
_PICTURE = re.compile(
    r"\.(jpe?g|a?png|gif|webp|avif|jxl|mp4|webm|mov|m4v|heic|bmp|tiff?|svg)($|[?#])|/pictrs/|/image_proxy|/media_attachments/",
    re.IGNORECASE,
)
_EACH_MOST = 20  # posts, hashes, rules and communities of one incident


class NothingToReport(Exception):
    """The case has no confirmed incident: there is nothing that we could show its admins."""


@dataclass(frozen=True, slots=True)
class Item:
    """An incident: its headline, and what is known of it, a line each."""

    headline: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report: sentences, then items."""

    heading: str
    sentences: tuple[str, ...]
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """A report before it is set: every string is one line without control characters."""

    subject: str
    opening: tuple[str, ...]
    sections: tuple[Section, ...]
    closing: tuple[str, ...]


def make_report(case: Case, *, answer_to: str = "", words: Wording = ENGLISH) -> Report:
    """The report on `case`; `answer_to` is where answers are read. Raises `NothingToReport`."""
    if not case.confirmed:
        raise NothingToReport(
            f"no incident of {case.domain} is confirmed yet; a report shows confirmed ones only: review them first"
        )
    names = {
        "domain": case.domain,
        "tenant": one_line(case.tenant, 253),
        "since": case.since.isoformat(),
        "until": case.until.isoformat(),
        "exposure": case.counts.exposure,
        "flagged": case.counts.flagged,
        "expected": _number(case.counts.expected),
        "confirmed": _many(case.counts.confirmed, words.incidents_counted),
        "listed": _many(len(case.confirmed), words.incidents_counted),
        "tenants": case.counts.tenants,
        "actors": _many(case.counts.actors, words.accounts_counted),
        "days": _many(case.counts.days, words.days_counted),
    }
    answer = [each.format(**names) for each in words.answer]
    if answer_to:
        answer.append(words.answer_to.format(address=one_line(answer_to, 320)))
    return Report(
        subject=words.subject.format(**names),
        opening=tuple(
            each.format(**names) for each in (words.greeting, words.opening, words.no_accusation, words.no_images)
        ),
        sections=(
            Section(words.heading_found, tuple(_found(case, names, words))),
            Section(words.heading_why, tuple(one_line(each, 500) for each in case.reasons)),
            _incidents(case, words),
            Section(words.heading_sure, words.sure),
            Section(words.heading_wrong, words.wrong),
            Section(words.heading_answer, tuple(answer)),
        ),
        closing=tuple(words.closing.format(**names).split("\n")),
    )


def _found(case: Case, names: dict[str, object], words: Wording) -> Iterable[str]:
    yield from (each.format(**names) for each in words.found)
    if case.counts.tenants > 1:
        yield words.found_together.format(**names)
    if case.ratio is not None:
        middle, low, high = (_number(each) for each in (case.ratio.middle, case.ratio.low, case.ratio.high))
        yield words.rate.format(middle=middle, low=low, high=high)
    if case.removal.looked_at == 0:
        yield words.removal_none
        return
    median = ""
    if case.removal.median is not None:
        median = words.median.format(duration=_duration(case.removal.median, words))
    looked_at = _many(case.removal.looked_at, words.posts_counted)
    yield words.removal.format(looked_at=looked_at, removed=case.removal.removed, median=median)


def _incidents(case: Case, words: Wording) -> Section:
    shown = case.confirmed[:INCIDENTS_MOST]
    left_out = len(case.confirmed) - len(shown)
    return Section(
        words.heading_incidents,
        (words.incidents_left_out.format(count=left_out),) if left_out else (),
        tuple(_item(number, each, case.domain, words) for number, each in enumerate(shown, 1)),
    )


def _item(number: int, incident: Incident, domain: str, words: Wording) -> Item:
    headline = words.incident.format(number=number, day=incident.day.isoformat(), actor=one_line(incident.actor, 40))
    return Item(headline, tuple(_lines(incident, domain, words)))


def _lines(incident: Incident, domain: str, words: Wording) -> Iterable[str]:
    when = [] if incident.posted_at is None else [words.posted.format(at=moment(incident.posted_at))]
    when.append(words.judged.format(at=moment(incident.judged_at)))
    if incident.communities:
        names = ", ".join(one_line(each, 300) for each in incident.communities[:_EACH_MOST])
        when.append(words.communities.format(names=names))
    yield _capital(", ".join(when)) + "."
    host = one_line(incident.image_host, 253)
    if host:
        yield words.host_own if host == domain else words.host.format(host=host)
    presence = {
        Presence.UP: words.presence_up,
        Presence.GONE: words.presence_gone,
        Presence.UNKNOWN: words.presence_unknown,
    }[incident.presence]
    posts = posts_of(incident)
    yield from (words.post.format(url=url, presence=presence) for url in posts[:_EACH_MOST])
    if not posts:
        yield words.no_post
    for rule in incident.rules[:_EACH_MOST]:
        yield words.rule.format(name=one_line(rule.name, 80), sentence=one_line(rule.sentence, 300))
    if incident.lists:
        yield words.listed.format(names=", ".join(one_line(each, 80) for each in incident.lists[:_EACH_MOST]))
    yield words.confirmed_by.format(who=one_line(incident.confirmed_by, 100))
    yield from (words.sha256.format(hash=one_line(each, 64)) for each in incident.sha256s[:_EACH_MOST])
    yield from (words.pdq.format(hash=one_line(each, 64)) for each in incident.pdqs[:_EACH_MOST])


def posts_of(incident: Incident) -> tuple[str, ...]:
    """The addresses of its posts that are addresses indeed, and not of a picture or a film itself; each once."""
    return tuple(dict.fromkeys(url for url in map(http_url, incident.posts) if url and not _PICTURE.search(url)))


def moment(at: datetime) -> str:
    """A moment as people read it: "2026-11-23 18:04 UTC"."""
    offset = at.utcoffset()
    assert offset is not None, "moments of a case carry a time zone"
    return f"{at.replace(tzinfo=None) - offset:%Y-%m-%d %H:%M} UTC"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _many(count: int, plural: Plural) -> str:
    return plural[count != 1].format(count=count)


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _duration(span: timedelta, words: Wording) -> str:
    hours = span.total_seconds() / 3600
    if hours < 1:
        return _many(max(1, round(hours * 60)), words.minutes_counted)
    if hours < 48:
        return _many(round(hours), words.hours_counted)
    return _many(round(hours / 24), words.days_counted)
