from hypothesis import given, settings
from hypothesis import strategies as st

from fediwarden.shadow import Tally
from schemas.broker import Received
from schemas.messages import Decision, RuleFired, Stage, Verdict
from schemas.topics import VERDICTS, VERDICTS_SHADOW
from tests.unit.schemas.samples import verdict

ACCEPT, REVIEW, REJECT = Decision.ACCEPT, Decision.REVIEW, Decision.REJECT


def said(scan_id: str, decision: Decision, *rules: str, policy: str = "new", at: int = 1000, **more: object) -> Verdict:
    fired = tuple(RuleFired(name=rule, decision=decision, frame=0) for rule in rules)
    return verdict(
        scan_id=scan_id, decision=decision, rules=fired, policy=policy, received_at=at, judged_at=at + 5, **more
    )


def tally(shadow: list[Verdict], live: list[Verdict], *, policy: str = "") -> Tally:
    made = Tally(policy)
    for each in shadow:
        made.take_shadow(Received(VERDICTS_SHADOW, 0, 0, 0, b"", each, None, 1))
    for each in live:
        made.take_live(Received(VERDICTS, 0, 0, 0, b"", each, None, 1))
    return made


def test_each_image_is_counted_once_under_what_was_and_what_would_have_been_decided():
    shadow = [said("a", REJECT, "new"), said("a", REJECT, "new"), said("b", ACCEPT), said("c", REVIEW, "old", "new")]
    live = [said("a", ACCEPT), said("b", ACCEPT), said("c", REJECT, "old"), said("c", REJECT, "old")]
    found = tally(shadow, live).comparison()
    assert dict(found.decisions) == {(ACCEPT, REJECT): 1, (ACCEPT, ACCEPT): 1, (REJECT, REVIEW): 1}
    assert (found.compared, found.changed) == (3, 2)
    assert found.examples == {(ACCEPT, REJECT): ["a"], (REJECT, REVIEW): ["c"]}
    assert (found.rules["new"].shadow, found.rules["new"].both) == (2, 0)
    assert (found.rules["old"].live, found.rules["old"].both) == (0, 1)


def test_what_has_no_partner_is_counted_apart_and_only_within_the_shadows_time():
    shadow = [said("a", ACCEPT, at=1000), said("alone", REJECT, at=2000)]
    live = [
        said("before", ACCEPT, at=999),
        said("a", ACCEPT, at=1000),
        said("missed", ACCEPT, at=1500),
        said("since", ACCEPT, at=2001),
    ]
    found = tally(shadow, live).comparison()
    assert (found.compared, found.without_live, found.without_shadow) == (1, 1, 1)


def test_the_latest_shadow_counts_or_the_one_that_is_asked_for():
    shadow = [said("a", REJECT, policy="first", at=1), said("a", ACCEPT, policy="second", at=2)]
    live = [said("a", ACCEPT)]
    assert dict(tally(shadow, live).comparison().decisions) == {(ACCEPT, ACCEPT): 1}
    asked = tally(shadow, live, policy="first").comparison()
    assert dict(asked.decisions) == {(ACCEPT, REJECT): 1}
    assert [(each.policy, count) for each, count in asked.others.items()] == [("second", 1)]
    assert tally(shadow, live, policy="third").comparison().judge is None


def test_an_overrides_verdict_is_nobodys_judgement():
    live = [said("a", ACCEPT), said("a", REJECT, stage=Stage.OVERRIDE)]
    assert dict(tally([said("a", ACCEPT)], live).comparison().decisions) == {(ACCEPT, ACCEPT): 1}


def test_what_a_rescan_made_of_it_later_is_not_what_was_decided_live():
    live = [said("a", ACCEPT), said("a", REJECT, stage=Stage.RESCAN, rescan="r")]
    assert dict(tally([said("a", ACCEPT)], live).comparison().decisions) == {(ACCEPT, ACCEPT): 1}


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(Decision)),
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(Decision)),
)
def test_every_image_of_either_is_accounted_for(shadow: dict[str, Decision], live: dict[str, Decision]):
    found = tally([said(*each) for each in shadow.items()], [said(*each) for each in live.items()]).comparison()
    assert found.compared + found.without_live == len(shadow)
    if shadow:
        assert found.compared + found.without_shadow == len(live)
    assert found.changed == sum(live[each] is not shadow[each] for each in shadow.keys() & live.keys())
