"""What happens if something is confirmed, in words that give nothing away."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_audit.reviewing.outcomes import Opinion, Review, Reviewed
from federation_audit.reviewing.prospects import Confirmed, foresee, ordinal
from federation_audit.store.periods import as_date

SINCE = date(2026, 10, 1)


def said(*opinions):
    return {1: Reviewed.of(tuple(Review(f"r{number}", each, number) for number, each in enumerate(opinions)))}


def tell(reviewed, incidents, *, before=0, already=(), local=()):
    known = frozenset((as_date(day), "7") for day in already) | {(as_date(1), f"other {n}") for n in range(before)}
    confirmed = {"bad.example": Confirmed(SINCE, known)}
    return foresee(reviewed, incidents, cluster="7", confirmed=confirmed, local_domains=local)


BAD = {"bad.example": {(3, 20_000)}}


def test_alone_nobody_confirms():
    assert tell({}, BAD) == ["Nobody else has reviewed it: a second reviewer is needed."]


def test_it_would_be_the_third():
    assert tell(said(Opinion.CONFIRM), BAD, before=2) == [
        "If the other reviewer confirmed it too, it becomes a confirmed incident of bad.example, its third since"
        " 2026-10-01."
    ]
    [of_new] = tell(said(Opinion.CONFIRM), {"new.example": {(3, 20_000)}})
    assert of_new.endswith("it becomes a confirmed incident of new.example, its first.")


def test_an_incident_that_is_confirmed_already_is_not_counted_twice():
    [told] = tell(said(Opinion.CONFIRM), BAD, already=[20_000])
    assert told.endswith("it belongs to an incident of bad.example that is confirmed already.")


def test_accounts_that_are_not_known_count_where_none_is():
    [told] = tell(said(Opinion.CONFIRM), {"bad.example": {(0, 20_000), (3, 20_000)}})
    assert told.endswith("a confirmed incident of bad.example, its first.")
    [told] = tell(said(Opinion.CONFIRM), {"bad.example": {(4, 20_000), (3, 20_000)}})
    assert told.endswith("2 confirmed incidents of bad.example, which has none so far.")


def test_unknown_is_unknown_and_ones_own_is_not_assessed():
    assert "against no instance" in tell(said(Opinion.CONFIRM), {})[0]
    assert tell(said(Opinion.CONFIRM), BAD, local=["bad.example"]) == [
        "If the other reviewer confirmed it too, it is confirmed. bad.example is your own: it is never assessed."
    ]


def test_many_instances_are_not_all_named():
    [told] = tell(said(Opinion.CONFIRM), {f"i{number}.example": {(1, 20_000)} for number in range(9)})
    assert told.count("its first") == 3 and told.endswith("; and so on for 6 more instances.")


@given(st.sampled_from([Opinion.CONFIRM, Opinion.UNSURE]))
def test_one_other_opinion_is_never_told(opinion):
    assert tell(said(opinion), BAD) == tell(said(Opinion.CONFIRM), BAD)


def test_others_who_do_not_agree_are_told_as_that():
    assert tell(said(Opinion.CONFIRM, Opinion.DISMISS), BAD) == tell(said(Opinion.DISMISS, Opinion.CONFIRM), BAD)
    assert "do not agree" in tell(said(Opinion.CONFIRM, Opinion.UNSURE), BAD)[0]


@pytest.mark.parametrize(
    ("number", "word"),
    [(1, "first"), (10, "tenth"), (11, "11th"), (21, "21st"), (22, "22nd"), (103, "103rd"), (112, "112th")],
)
def test_ordinals(number, word):
    assert ordinal(number) == word
