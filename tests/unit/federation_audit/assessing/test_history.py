"""One instance over time: the same numbers that an assessment of everybody gives, at its own day."""

from datetime import timedelta

import pytest
from sqlalchemy import insert

from federation_audit.assessing.assessor import Assessor
from federation_audit.assessing.history import read_history
from federation_audit.deciding.tables import REMEDIATIONS
from federation_audit.statistics.assessment import assess
from federation_audit.store.engine import Store
from federation_audit.store.periods import as_day
from tests.fediverse import copy_filled


@pytest.mark.parametrize("domain", ["bad.example", "tiny1.example", "flooded.example", "oak.example"])
def test_each_look_is_what_an_assessment_of_everybody_says_of_that_day(tmp_path, domain):
    url, world = copy_filled(tmp_path)
    with Store(url) as store:
        assessed = Assessor(store).refresh(world.today)
    looks = read_history(assessed, domain, world.today - timedelta(weeks=9))
    assert [look.at for look in looks] == [world.today - timedelta(weeks=n) for n in range(len(looks) - 1, -1, -1)]
    assert len(looks) >= 9
    for look in looks:
        known, usual = assessed.known, assessed.assessment.usual
        everybody = assess(assessed.assessment.table, known.evidence, look.at, usual=usual)[domain]
        triage, decision = everybody.triage, everybody.decision
        assert (look.media, look.flagged) == (triage.media, triage.flagged)
        if look.ratio is not None:
            assert (look.ratio, look.low, look.high) == pytest.approx((triage.ratio, triage.low, triage.high))
        assert (look.ratio is None) == (triage.media < 200)
        assert (look.since, look.recent_media) == (decision.since, decision.media)
        assert (look.incidents, look.independent) == (len(decision.incidents), len(decision.independent))
        assert look.e_value == pytest.approx(decision.e_value)


def test_evidence_begins_anew_in_it_with_a_clean_up(tmp_path):
    url, world = copy_filled(tmp_path)
    clean = world.today - timedelta(days=10)
    with Store(url) as store:
        with store.writing() as connection:
            row = {"domain": "bad.example", "day": as_day(clean), "noted_by": "alice", "noted_at": 0}
            connection.execute(insert(REMEDIATIONS), [row])
        assessed = Assessor(store).refresh(world.today)
    *_, before, after, last = read_history(assessed, "bad.example", world.today - timedelta(weeks=5))
    assert before.at < clean
    assert before.incidents >= 4
    assert (after.since, after.incidents) == (clean + timedelta(days=1), 1)
    assert last.incidents == 2


def test_of_somebody_unknown_there_is_none(tmp_path):
    url, world = copy_filled(tmp_path)
    with Store(url) as store:
        assessed = Assessor(store).refresh(world.today)
    assert read_history(assessed, "nobody.example", world.today - timedelta(weeks=5)) == []
    assert read_history(assessed, "bad.example", world.today + timedelta(days=1)) == []
