"""What opinions come to."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_audit.reviewing.outcomes import Opinion, Outcome, Review, Reviewed, outcome_of

CONFIRM, DISMISS, UNSURE = Opinion
opinions = st.lists(st.sampled_from(list(Opinion)), max_size=9)


@pytest.mark.parametrize(
    ("given_", "outcome"),
    [
        ([], Outcome.OPEN),
        ([CONFIRM], Outcome.OPEN),
        ([UNSURE, UNSURE, UNSURE], Outcome.OPEN),
        ([CONFIRM, CONFIRM], Outcome.CONFIRMED),
        ([CONFIRM, UNSURE], Outcome.OPEN),
        ([DISMISS], Outcome.DISMISSED),
        ([DISMISS, UNSURE], Outcome.DISMISSED),
        ([DISMISS, CONFIRM], Outcome.DISPUTED),
        ([DISMISS, CONFIRM, CONFIRM], Outcome.DISPUTED),
        ([DISMISS, CONFIRM, CONFIRM, CONFIRM], Outcome.CONFIRMED),
        ([CONFIRM, DISMISS, DISMISS, DISMISS], Outcome.DISMISSED),
    ],
)
def test_examples(given_, outcome):
    assert outcome_of(given_) is outcome


@given(opinions)
def test_neither_order_nor_the_unsure_make_a_difference(said):
    outcome = outcome_of(said)
    assert outcome_of(sorted(said)) is outcome
    assert outcome_of([*said, UNSURE]) is outcome


@given(opinions)
def test_nothing_is_confirmed_by_one_or_against_as_many(said):
    confirm, dismiss = said.count(CONFIRM), said.count(DISMISS)
    outcome = outcome_of(said)
    if outcome is Outcome.CONFIRMED:
        assert confirm >= 2 and confirm >= dismiss + 2
    if outcome is Outcome.DISMISSED:
        assert dismiss >= 1 and (not confirm or dismiss >= confirm + 2)
    assert (outcome is Outcome.DISPUTED) == (confirm > 0 and dismiss > 0 and abs(confirm - dismiss) < 2)


@given(opinions)
def test_who_wins_with_one_side_loses_with_the_sides_turned_unless_two_were_needed(said):
    turned = [{CONFIRM: DISMISS, DISMISS: CONFIRM}.get(each, each) for each in said]
    pairs = {outcome_of(said), outcome_of(turned)}
    assert pairs not in ({Outcome.CONFIRMED}, {Outcome.DISMISSED})


@given(opinions)
def test_it_is_settled_when_the_last_opinion_that_counts_was_given(said):
    times = itertools.count(1)
    reviewed = Reviewed.of(tuple(Review(f"r{at}", opinion, at) for opinion, at in zip(said, times, strict=False)))
    settled = {Outcome.CONFIRMED: CONFIRM, Outcome.DISMISSED: DISMISS}.get(reviewed.outcome)
    expected = max((at for at, opinion in enumerate(said, 1) if opinion is settled), default=None)
    assert reviewed.settled_at == expected
