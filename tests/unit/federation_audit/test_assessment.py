import random
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation_audit.statistics.assessment import assess, learn_usual
from federation_audit.statistics.events import (
    Confirmation,
    Contact,
    Evidence,
    Exposure,
    Incident,
    InvalidEvidence,
    Remediation,
    Reviews,
    Stratum,
)
from federation_audit.statistics.exposures import ExposureTable
from federation_audit.statistics.levels import Level
from schemas.messages import Confidence

CLIP = Stratum("clip", "default", "list@1")
SMALL = Stratum("safety-s", "default", "list@1")
QUARTER = date(2026, 10, 1)
AT = date(2026, 11, 28)


def exposure(instance, media, flagged=0, *, day=QUARTER, stratum=CLIP, busiest=0):
    return Exposure(instance, stratum, day, day + timedelta(days=6), media, flagged, busiest)


def ordinary(count=60, media=1000):
    """Instances that nothing is the matter with."""
    flagged = (3, 5, 7, 9, 10, 11, 13, 16, 20)
    return [exposure(f"i{at}.example", media, flagged[at % len(flagged)]) for at in range(count)]


def incidents(count, *, instance="bad.example", actors=6, first=QUARTER, every=2, **more):
    return [
        Incident(
            f"{instance}-{at}",
            instance,
            f"a{at % actors}",
            first + timedelta(days=at * every),
            f"c{at}",
            Confirmation.REVIEWERS,
            **more,
        )
        for at in range(count)
    ]


def assess_rows(rows, evidence=None, at=AT):
    return assess(ExposureTable.from_rows(rows), evidence or Evidence(), at)


def test_several_accounts_over_weeks_on_a_small_instance_are_recommended_with_their_numbers():
    found = assess_rows([*ordinary(), exposure("bad.example", 1_000, 30)], Evidence(incidents(9)))["bad.example"]
    assert found.level is Level.RECOMMEND
    assert found.expires == date(2027, 1, 1)
    assert len(found.decision.independent) == 6
    assert found.reasons[0].startswith(
        "9 confirmed incidents by 6 accounts on 9 days among 1,000 images since 2026-10-01; of an innocent one, 0.3 at"
    )
    assert any("share no account, day or picture" in reason for reason in found.reasons)
    assert found.reasons[-1] == "Recommended for a person's decision, until 2027-01-01."


def test_nothing_at_all_is_an_empty_assessment():
    found = assess_rows([])
    assert len(found) == 0
    assert not found.usual.prior.learnt


@pytest.mark.parametrize("others", [0, 3, 10])
def test_with_few_instances_there_is_no_watch_and_the_reason_says_so(others):
    found = assess_rows([*ordinary(others), exposure("loud.example", 2_000, 400)])["loud.example"]
    assert found.level is Level.INSUFFICIENT
    assert any(f"only {others + 1} instances" in reason for reason in found.reasons)


def test_more_flagged_than_is_usual_is_watched_and_no_more():
    found = assess_rows([*ordinary(), exposure("loud.example", 2_000, 100)])["loud.example"]
    assert found.level is Level.WATCH
    assert "Flags prove nothing: have some of them reviewed." in found.reasons
    assert any(reason.startswith("100 flagged where 2") for reason in found.reasons)


def test_thirty_images_are_too_few_and_the_reason_says_so():
    found = assess_rows([*ordinary(), exposure("new.example", 30, 5)], Evidence(incidents(1, instance="new.example")))
    assert found["new.example"].level is Level.INSUFFICIENT
    assert "30 images in all: too few to compare, 200 are needed." in found["new.example"].reasons
    assert any(
        reason.startswith("Insufficient for level 2: 1 independent of 2") for reason in found["new.example"].reasons
    )


def test_a_bad_instance_of_thirty_images_is_a_reason_to_write_to_it_not_to_recommend():
    found = assess_rows([*ordinary(), exposure("new.example", 30, 8)], Evidence(incidents(8, instance="new.example")))
    assert found["new.example"].level is Level.RESTRICT
    assert found["new.example"].reasons[-1] == "Not recommended for more: 30 of 200 images."


def test_one_account_that_floods_counts_once_and_is_named_as_the_remedy():
    flood = incidents(50, instance="large.example", actors=1, every=1)
    found = assess_rows([*ordinary(), exposure("large.example", 20_000, 250)], Evidence(flood))["large.example"]
    assert found.level is Level.INSUFFICIENT
    assert len(found.decision.incidents) == 50
    assert len(found.decision.independent) == 1
    assert "All 50 by one account: report the account to its instance; it counts once." in found.weaknesses


def test_unanswered_letters_stand_for_the_seven_days():
    quick = incidents(4, first=date(2026, 11, 10), every=1)
    rows = [*ordinary(), exposure("bad.example", 300, 10)]
    assert assess_rows(rows, Evidence(quick))["bad.example"].level is Level.RESTRICT
    letter = Contact("l1", "bad.example", date(2026, 11, 15))
    silent = assess_rows(rows, Evidence(quick, contacts=[letter]))["bad.example"]
    assert silent.level is Level.RECOMMEND
    assert "Its admins were written to on 2026-11-15 and have not answered." in silent.reasons
    answered = replace(letter, answered=date(2026, 11, 27))
    assert assess_rows(rows, Evidence(quick, contacts=[answered]))["bad.example"].level is Level.RESTRICT
    too_soon = replace(letter, sent=date(2026, 11, 25))
    assert assess_rows(rows, Evidence(quick, contacts=[too_soon]))["bad.example"].level is Level.RESTRICT
    before = replace(letter, sent=date(2026, 10, 2))
    assert assess_rows(rows, Evidence(quick, contacts=[before]))["bad.example"].level is Level.RESTRICT


def test_evidence_of_the_last_quarter_no_longer_counts():
    rows = [*ordinary(), exposure("bad.example", 1_000, 30)]
    assert assess_rows(rows, Evidence(incidents(7)), date(2026, 12, 31))["bad.example"].level is Level.RECOMMEND
    later = assess_rows(rows, Evidence(incidents(7)), date(2027, 1, 1))["bad.example"]
    assert later.level < Level.RESTRICT
    assert later.decision.incidents == ()
    assert later.decision.since == date(2027, 1, 1)
    assert any("began anew on 2027-01-01, with the quarter" in weakness for weakness in later.weaknesses)


def test_a_clean_up_begins_anew_and_what_comes_after_counts():
    rows = [
        *ordinary(),
        *(exposure("bad.example", 150, 5, day=QUARTER + timedelta(days=7 * week)) for week in range(8)),
    ]
    note = Remediation("r1", "bad.example", date(2026, 10, 20))
    cleaned = assess_rows(rows, Evidence(incidents(7), remediations=[note]))["bad.example"]
    assert cleaned.level < Level.RESTRICT
    assert cleaned.decision.since == date(2026, 10, 21)
    assert "Evidence begins anew: it cleaned up on 2026-10-20." in cleaned.weaknesses
    again = Evidence([*incidents(7), *incidents(6, first=date(2026, 10, 22), every=3)], remediations=[note])
    assert assess_rows(rows, again)["bad.example"].level is Level.RECOMMEND


def test_a_period_astride_a_restart_counts_whole_in_favour_of_the_instance():
    rows = [*ordinary(), exposure("a.example", 700, day=date(2026, 9, 28))]
    assert assess_rows(rows)["a.example"].decision.media == 700


def test_local_instances_are_not_assessed_however_they_are_spelt():
    rows = [*ordinary(), exposure("xn--bcher-kva.example", 1_000, 500)]
    evidence = Evidence(incidents(9, instance="xn--bcher-kva.example"), local_domains=frozenset({"Bücher.example:443"}))
    assert "xn--bcher-kva.example" not in assess_rows(rows, evidence)
    assert "i0.example" in assess_rows(rows, evidence)


def test_the_host_of_a_picture_is_not_its_author():
    elsewhere = incidents(6, image_host="images.example")
    unknown = [replace(one, instance=None, incident_id=f"u{one.incident_id}") for one in elsewhere]
    found = assess_rows([*ordinary(), exposure("bad.example", 1_000, 30)], Evidence([*elsewhere, *unknown]))
    assert "images.example" not in found
    assert len(found["bad.example"].decision.incidents) == 6
    assert any(
        weakness.startswith("6 of 6 pictures lay on another host") for weakness in found["bad.example"].weaknesses
    )


def test_what_is_merely_possible_accuses_nobody_but_is_shown():
    evidence = Evidence(incidents(9, confidence=Confidence.POSSIBLE))
    found = assess_rows([*ordinary(), exposure("bad.example", 1_000, 9)], evidence)["bad.example"]
    assert found.level is Level.INSUFFICIENT
    assert len(found.decision.possible) == 9
    assert "9 more incidents perhaps of this instance, not counted." in found.weaknesses


def test_what_is_dated_later_than_the_moment_is_not_seen():
    future = [*ordinary(), exposure("a.example", 50), exposure("a.example", 900, day=date(2026, 12, 24))]
    found = assess_rows(future, Evidence(incidents(5, instance="a.example", first=date(2026, 12, 1))))["a.example"]
    assert found.decision.media == found.triage.media == 50
    assert found.decision.incidents == ()


def test_incidents_without_images_are_counts_that_do_not_belong_together():
    found = assess_rows(ordinary(), Evidence(incidents(5, instance="ghost.example")))["ghost.example"]
    assert found.level is Level.INSUFFICIENT
    assert "the audit is to be rebuilt" in found.reasons[0]


def test_mostly_unattributed_exposure_and_one_busy_account_weaken_everything():
    rows = [*ordinary(), exposure(None, 200_000), exposure("bot.example", 1_000, 9, busiest=800)]
    weaknesses = assess_rows(rows)["bot.example"].weaknesses
    assert any(weakness.startswith("Of 77 % of all images") for weakness in weaknesses)
    assert any(weakness.startswith("80 % of its images came from the busiest account") for weakness in weaknesses)


def test_an_instance_too_large_to_be_named_is_said_to_be():
    found = assess_rows([*ordinary(), exposure("huge.example", 150_000, 1_500), exposure("big.example", 20_000, 200)])
    says = [any("the numbers cannot name it" in weakness for weakness in one.weaknesses) for one in found]
    assert [one.instance for one, is_said in zip(found, says, strict=True) if is_said] == ["huge.example"]


def test_before_the_first_review_all_that_is_flagged_is_taken_to_be_false():
    rates = learn_usual(ExposureTable.from_rows(ordinary()), Evidence(), AT).rates[0]
    assert rates.false_share == 1.0
    assert rates.false_rate_at_most == rates.flag_rate


def test_reviews_lower_the_bound_only_as_far_as_they_go():
    def bound(yes, no):
        reviews = [Reviews(CLIP, yes, no)]
        return learn_usual(ExposureTable.from_rows(ordinary()), Evidence(reviews=reviews), AT).rates[0]

    assert bound(1, 0).false_rate_at_most == pytest.approx(0.95 * bound(1, 0).flag_rate)
    assert bound(50, 50).false_rate_at_most > bound(50, 50).false_rate
    assert bound(0, 100).false_rate_at_most == bound(0, 100).flag_rate


def test_what_is_usual_does_not_depend_on_how_often_reviewers_dismiss():
    rows = [*ordinary(), exposure("loud.example", 2_000, 100)]
    plain = assess_rows(rows)["loud.example"].triage
    reviewed = assess_rows(rows, Evidence(reviews=[Reviews(CLIP, 90, 10)]))["loud.example"].triage
    assert reviewed.ratio == pytest.approx(plain.ratio, rel=1e-3)


def test_who_is_judged_by_a_stricter_model_is_compared_with_others_under_it():
    lenient = [exposure(f"i{at}.example", 1_000, 4 + at % 5) for at in range(40)]
    strict = [exposure(f"s{at}.example", 1_000, 50 + at % 20, stratum=SMALL) for at in range(40)]
    found = assess_rows([*lenient, *strict])
    assert {one.level for one in found} == {Level.INSUFFICIENT}
    assert found["s0.example"].triage.ratio < 1.5


def test_every_number_opens_into_the_rows_and_incidents_it_is_made_of():
    rows = [
        *ordinary(),
        *(exposure("bad.example", 100, 3, day=date(2026, 9, 3) + timedelta(days=7 * week)) for week in range(9)),
        exposure("bad.example", 300, 4, stratum=SMALL),
    ]
    found = assess_rows(rows, Evidence(incidents(5)))
    bad, parts = found["bad.example"], found.open("bad.example")
    assert len(parts) == 10
    assert sum(part.media for part in parts) == bad.triage.media
    assert sum(part.flagged for part in parts) == bad.triage.flagged
    assert sum(part.expected for part in parts) == pytest.approx(bad.triage.expected)
    assert sum(part.media for part in parts if part.in_decision) == bad.decision.media
    assert sum(part.tolerable for part in parts if part.in_decision) == pytest.approx(bad.decision.tolerable)
    due = sum(part.expected * part.weight for part in parts)
    precision = due / sum(part.expected * part.weight**2 for part in parts)
    assert bad.triage.counted_expected == pytest.approx(due * precision)
    assert bad.triage.counted == pytest.approx(sum(part.flagged * part.weight for part in parts) * precision)
    assert {one.incident_id for one in bad.decision.independent} <= {one.incident_id for one in bad.decision.incidents}


def test_the_order_of_rows_and_events_changes_not_a_bit():
    rows = [
        *ordinary(),
        *(exposure("bad.example", 100 + week, 3, day=QUARTER + timedelta(days=week)) for week in range(9)),
    ]
    events = [*incidents(7), *incidents(3, instance="i3.example")]
    expected = dict(assess_rows(rows, Evidence(events)).instances)
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        random.Random(seed).shuffle(events)
        assert dict(assess_rows(rows, Evidence(events)).instances) == expected


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 8), st.integers(0, 8), st.integers(1, 6), st.integers(100, 20_000), st.integers(1, 5))
def test_more_incidents_never_lower_the_level_and_more_exposure_never_raises_the_e_value(
    count, more, actors, media, every
):
    rows = [*ordinary(35), exposure("bad.example", media, 10)]
    table = ExposureTable.from_rows(rows)
    usual = learn_usual(table, Evidence(), AT)
    few = assess(table, Evidence(incidents(count, actors=actors, every=every)), AT, usual=usual)
    many = assess(table, Evidence(incidents(count + more, actors=actors, every=every)), AT, usual=usual)
    assert many["bad.example"].level >= few["bad.example"].level
    larger = ExposureTable.from_rows([*rows, exposure("bad.example", 500)])
    diluted = assess(larger, Evidence(incidents(count, actors=actors, every=every)), AT, usual=usual)
    assert diluted["bad.example"].decision.log_e <= few["bad.example"].decision.log_e + 1e-12


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (Exposure("a.example", CLIP, AT, AT, -1), "media is a count"),
        (Exposure("a.example", CLIP, AT, AT, 2**31), "media is a count, 0 or more and at most 2147483647"),
        (Exposure("a.example", CLIP, AT, AT, 5, flagged=6), "flagged is more than media"),
        (Exposure("a.example", CLIP, AT, AT, 5, busiest=6), "busiest is more than media"),
        (Exposure("a.example", CLIP, AT, AT - timedelta(days=1), 5), "last is before first"),
    ],
)
def test_counts_that_cannot_be_are_refused_by_name(row, says):
    with pytest.raises(InvalidEvidence, match=says):
        ExposureTable.from_rows([row])


def test_an_incident_without_a_cluster_is_refused():
    with pytest.raises(InvalidEvidence, match="cluster is empty"):
        Incident("n1", "a.example", "a", AT, "")


def test_twenty_thousand_instances_are_assessed_in_one_call():
    names = [f"i{at}.example" for at in range(20_000)]
    table = ExposureTable.from_columns(
        instances=names,
        strata=[CLIP] * len(names),
        first=[QUARTER] * len(names),
        last=[AT] * len(names),
        media=[at % 1_000 for at in range(20_000)],
        flagged=[at % 1_000 // 100 for at in range(20_000)],
    )
    assert len(assess(table, Evidence(incidents(5, instance="i7.example")), AT)) == 20_000


def test_what_is_said_of_some_instances_alone_is_what_is_said_of_them_among_all():
    rows = [*ordinary(35), exposure("bad.example", 900, 10), exposure("good.example", 700), exposure(None, 50)]
    whole = assess_rows(rows, Evidence(incidents(5)))
    about = whole.about(["bad.example", "good.example", "nobody.example"])
    assert set(about.instances) == {"bad.example", "good.example"}
    for name, found in about.instances.items():
        assert found == whole[name]
        assert about.open(name) == whole.open(name) != ()
    assert len(about.table.media) == 3 < len(whole.table.media)
    assert (about.at, about.unattributed_media) == (whole.at, whole.unattributed_media)
