"""A case against what was written into the store."""

import hashlib
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import insert

from federation_audit.assessing.assessor import Assessor
from federation_audit.assessing.case import build_case, read_tenants
from federation_audit.cases import ContactKind, Level, Presence
from federation_audit.deciding.tables import ADDRESSES
from federation_audit.presence.tables import PRESENCES
from federation_audit.reports.json import as_json
from federation_audit.reports.report import make_report
from federation_audit.reports.text import as_text
from federation_audit.reviewing.outcomes import Opinion
from federation_audit.store.engine import Store
from federation_audit.store.periods import as_date
from schemas.messages import Decision
from schemas.topics import DAY_MS
from tests.fediverse import HOSTILE, LIST, RULES, SECOND, copy_filled, review
from tests.stores import NOON, judged, pdq, received, seen, sha, write


@pytest.fixture
def filled(tmp_path):
    url, world = copy_filled(tmp_path)
    with Store(url) as store:
        yield store, world, Assessor(store, verified_lists=[LIST.partition("@")[0]]).refresh(world.today)


def built(filled, domain="bad.example", **options):
    store, world, assessed = filled
    options = {"since": world.today - timedelta(days=90), "until": world.today, "sentences": RULES} | options
    with store.reading() as connection:
        return build_case(connection, assessed, domain, **options)


def test_a_case_has_every_incident_with_all_that_belongs_to_it(filled):
    world = filled[1]
    case = built(filled, case_links=lambda tenant, sha256: f"https://w.example/{tenant}/{sha256[:4]}")
    assert (case.level, case.tenant) == (Level.RECOMMEND, "default")
    assert {bytes.fromhex(each) for one in case.confirmed for each in one.sha256s} == set(
        world.confirmed["bad.example"]
    )
    assert len(case.confirmed) == 6
    assert (case.counts.confirmed, case.counts.actors, case.counts.days, case.counts.exposure) == (7, 5, 7, 301)
    first = case.confirmed[0]
    assert set(first.sha256s) == {each.hex() for each in world.clusters[0]}
    assert len(first.pdqs) == len(first.posts) == 3
    assert first.case_link == f"https://w.example/default/{first.sha256s[0][:4]}"
    assert first.communities == ("https://alder.example/c/pictures",)
    assert [(each.name, each.sentence) for each in first.rules] == [("explicit", RULES["explicit"])]
    assert first.posted_at is not None
    assert first.posted_at.date() == first.day
    assert first.judged_at > first.posted_at
    assert first.confirmed_by == "two reviewers"
    assert first.presence is Presence.UNKNOWN
    assert case.ratio is not None
    assert case.ratio.low < case.ratio.middle < case.ratio.high
    assert "bad.example" in as_text(make_report(case))


def test_a_case_of_the_confirmed_alone_is_the_same_but_for_the_others(filled):
    left_out = []
    for domain in sorted(each.instance for each in filled[2].assessment):
        whole, confirmed = built(filled, domain), built(filled, domain, confirmed_only=True)
        assert whole.left_out == 0
        assert confirmed.incidents == tuple(each for each in whole.incidents if each.confirmed)
        assert confirmed == replace(whole, incidents=confirmed.incidents, left_out=confirmed.left_out)
        assert len(confirmed.incidents) + confirmed.left_out == len(whole.incidents)
        left_out.append(confirmed.left_out)
    assert max(left_out) > 0


def test_a_case_speaks_for_one_tenant(filled):
    store, world, assessed = filled
    with store.reading() as connection:
        assert read_tenants(connection, assessed, "bad.example") == ["default", SECOND]
        assert read_tenants(connection, assessed, "nobody.example") == []
    case = built(filled, tenant=SECOND)
    assert [each.sha256s for each in case.incidents] == [(world.second[-1].hex(),)]
    assert built(filled, tenant="third").incidents == ()


@pytest.mark.parametrize(
    ("tenant", "listed"), [("default", "6 confirmed incidents."), (SECOND, "1 confirmed incident.")]
)
def test_a_report_lists_what_one_tenant_saw_and_counts_all_that_its_reasons_count(filled, tenant, listed):
    found = filled[2].assessment.instances["bad.example"]
    case = built(filled, tenant=tenant, since=found.decision.since)
    assert case.counts.confirmed == len(found.decision.incidents) == 7
    report = make_report(case)
    said, why = (" ".join(section.sentences) for section in report.sections[:2])
    assert "7 confirmed incidents, by 5 accounts on 7 days" in said
    images = found.decision.media
    assert f"7 confirmed incidents by 5 accounts on 7 days among {images} images" in why
    assert f"{images} different images reached us" in said
    assert f"2 instances that look at images together, {tenant} among them" in said
    assert f"has what reached {tenant} alone: {listed}" in said
    assert report.subject.endswith(listed.removesuffix("."))
    assert len(report.sections[2].items) == int(listed[0])
    counts = json.loads(as_json(case))["counts"]
    assert (counts["confirmed_incidents"], counts["accounts"], counts["days"], counts["images"]) == (7, 5, 7, images)
    assert (counts["instances_counted_for"], counts["confirmed_incidents_listed"]) == (2, int(listed[0]))


def test_the_counts_of_a_case_are_those_of_the_assessment(filled):
    for domain, found in filled[2].assessment.instances.items():
        decision = found.decision
        counts = built(filled, domain, since=decision.since).counts
        assert (counts.confirmed, counts.actors, counts.days) == (
            len(decision.incidents),
            decision.actors,
            decision.days,
        ), domain


def test_days_outside_are_left_out(filled):
    world = filled[1]
    case = built(filled, since=world.today - timedelta(days=25), until=world.today - timedelta(days=8))
    assert [(world.today - each.day).days for each in case.confirmed] == [22, 15, 8]
    assert case.counts.exposure < 301


def test_lists_confirm_and_are_named(filled):
    (incident,) = built(filled, "listed.example").confirmed
    assert (incident.lists, incident.confirmed_by) == ((LIST,), "a verified hash list")


def test_what_was_dismissed_is_no_incident(filled):
    store, world, _ = filled
    found = {each for one in built(filled, "drawings.example").incidents for each in one.sha256s}
    assert len(found) < len(world.flagged["drawings.example"])
    review(store, [bytes.fromhex(each) for each in found], Opinion.DISMISS, by=("bob",))
    later = Assessor(store).refresh(world.today)
    assert built((store, world, later), "drawings.example").incidents == ()


def test_texts_of_strangers_come_through_as_they_are(filled):
    posts = {each for one in built(filled, "hostile.example").incidents for each in one.posts}
    assert posts == set(HOSTILE)


def test_presence_and_removal_are_of_the_posts_that_were_looked_at(filled):
    store = filled[0]
    first, second = built(filled).confirmed[:2]
    posted = round(first.posted_at.timestamp() * 1000)
    names = {column.name for column in PRESENCES.columns}
    rows = []
    for post, state in [*((each, "gone") for each in first.posts), (second.posts[0], "up")]:
        row = {
            "digest": hashlib.sha256(post.encode()).digest(),
            "post_url": post,
            "domain": "bad.example",
            "posted_at": posted,
            "known_at": posted,
            "state": state,
            "looks": 1,
            "asked_at": posted + DAY_MS,
            "looked_at": posted + DAY_MS,
            "next_at": None,
            "gone_at": posted + DAY_MS if state == "gone" else None,
        }
        rows.append({name: value for name, value in row.items() if name in names})
    with store.writing() as connection:
        connection.execute(insert(PRESENCES), rows)
        row = {"domain": "bad.example", "source": "nodeinfo", "found_at": 0}
        connection.execute(
            insert(ADDRESSES),
            [
                row | {"kind": "profile", "value": "https://bad.example/u/admin"},
                row | {"kind": "mail", "value": "abuse@bad.example"},
            ],
        )
    case = built(filled)
    assert [each.presence for each in case.confirmed[:3]] == [Presence.GONE, Presence.UP, Presence.UNKNOWN]
    assert (case.removal.looked_at, case.removal.removed) == (4, 3)
    assert case.removal.median == timedelta(days=1)
    assert [each.kind for each in case.contacts] == [ContactKind.MAIL, ContactKind.PROFILE]


def test_of_somebody_unknown_there_is_an_empty_case(filled):
    case = built(filled, "nobody.example")
    assert (case.level, case.incidents, case.ratio, case.counts.exposure) == (Level.INSUFFICIENT, (), None, 0)
    assert case.reasons


def test_an_image_known_by_its_address_alone_is_found_with_its_post(store):
    url = "https://i.example/1"
    named = seen(1, url=url, post="")
    told = seen(url=url, author="a.example", actor="x", post="https://a.example/post/1", host="i.example", posted=NOON)
    recorder = write(store, [judged(1, Decision.REJECT), named, told])
    recorder.record(received([seen(url=url, author="b.example", post="https://b.example/post/1")]), {})
    review(store, [sha(1)])
    assessed = Assessor(store).refresh()
    day = timedelta(days=1)
    with store.reading() as connection:
        at = assessed.known.evidence.incidents[0].day
        case = build_case(connection, assessed, "a.example", since=at - day, until=at + day)
    (incident,) = case.confirmed
    assert (incident.posts, incident.image_host) == (("https://a.example/post/1",), "i.example")
    assert incident.pdqs == (pdq(1).hex(),)
    assert incident.rules[0].sentence == 'The rule "explicit" of this instance fired.'


def test_beside_an_account_that_is_known_one_that_is_not_is_no_other_whenever_that_was(store):
    alike = [pdq(1)]
    pictures = [judged(image, Decision.REJECT, looks=alike) for image in (1, 2)]
    later = seen(2, "a.example", at=NOON + 9 * DAY_MS)
    write(
        store, [*pictures, judged(3, Decision.REJECT), seen(1, "a.example", actor="ann"), later, seen(3, "a.example")]
    )
    assessed = Assessor(store).refresh()
    first = as_date(NOON // DAY_MS)

    def days(since: int, until: int) -> list[int]:
        """The days of the incidents in these, after the first."""
        with store.reading() as connection:
            begin, end = (first + timedelta(days=each) for each in (since, until))
            case = build_case(connection, assessed, "a.example", since=begin, until=end)
        return [(each.day - first).days for each in case.incidents]

    assert days(0, 0) == [0, 0]
    assert days(1, 20) == []
