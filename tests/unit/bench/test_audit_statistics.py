"""The simulation of docs/evidence.md with few repetitions: `python -m bench.audit_statistics` runs many."""

import numpy as np
import pytest

from bench.audit_adversaries import (
    INNOCENT,
    drown_in_harmless_images,
    flood_through_small_instance,
    raid_for_ten_days,
)
from bench.audit_fediverse import World, invent
from bench.audit_statistics import at_level, false_share, look_weekly, name_by_incidents
from federation_audit.statistics.levels import Level

SMALL = World(instances=40, bad=2, weeks=14)


@pytest.fixture(scope="module")
def looks():
    """One fediverse of 600 instances, 12 of them bad, at 26 looks."""
    fediverse = invent(World(), np.random.default_rng(11))
    return fediverse, [at_level(assessment, Level.RECOMMEND) for assessment in look_weekly(fediverse)]


def test_of_600_instances_no_innocent_one_is_recommended_at_any_of_26_looks(looks):
    fediverse, named = looks
    assert max(false_share(some, fediverse.bad) for some in named) <= 0.01
    assert false_share(set().union(*named), fediverse.bad) <= 0.01


def test_of_12_bad_instances_eight_in_ten_are_recommended(looks):
    fediverse, named = looks
    assert len(set().union(*named) & fediverse.bad) >= 0.8 * 12


@pytest.mark.parametrize("adversary", INNOCENT, ids=lambda adversary: adversary.__name__)
def test_the_innocent_are_not_recommended_whatever_an_adversary_does(adversary):
    fediverse, victim = adversary(SMALL, np.random.default_rng(7))
    worst = Level.INSUFFICIENT
    for assessment in look_weekly(fediverse):
        assert at_level(assessment, Level.RECOMMEND) <= fediverse.bad
        if victim in assessment:
            worst = max(worst, assessment[victim].level)
    assert worst < Level.RESTRICT


def test_an_image_host_is_no_instance():
    fediverse, host = INNOCENT[2](SMALL, np.random.default_rng(7))
    assert any(incident.image_host == host for incident in fediverse.incidents)
    assert all(host not in assessment for assessment in look_weekly(fediverse))


def test_had_every_incident_counted_two_accounts_would_be_enough_to_frame_a_small_instance():
    fediverse, victim = flood_through_small_instance(SMALL, np.random.default_rng(7))
    for number, incident in enumerate(fediverse.incidents):
        if incident.instance == victim and number % 2:
            fediverse.incidents[number] = type(incident)(
                incident.incident_id,
                victim,
                "another flooder",
                incident.day,
                incident.cluster,
                incident.confirmed,
            )
    by_incidents, ours = set(), set()
    for assessment in look_weekly(fediverse):
        by_incidents |= name_by_incidents(assessment)
        ours |= at_level(assessment, Level.RECOMMEND)
    assert victim in by_incidents
    assert victim not in ours


@pytest.mark.parametrize(
    ("adversary", "level"), [(raid_for_ten_days, Level.RECOMMEND), (drown_in_harmless_images, Level.INSUFFICIENT)]
)
def test_what_the_docs_say_cannot_be_told_apart_is_not(adversary, level):
    fediverse, victim = adversary(SMALL, np.random.default_rng(7))
    assert max(assessment[victim].level for assessment in look_weekly(fediverse) if victim in assessment) == level
