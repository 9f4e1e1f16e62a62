"""Everything is broken once, under load, and no promise with it. `make test` breaks the short selection only."""

import json
import os

import pytest

from tests.faults.faults import FAULTS, make_random, possible
from tests.faults.rig import running_rig
from tests.faults.trial import undergo

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.alone, pytest.mark.timeout(420)]

LONG = os.environ.get("FEDIWARDEN_FAULTS") == "long"
RANDOM_SEEDS = range(1, 6)


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with running_rig(tmp_path_factory.mktemp("faults")) as rig:
        yield rig


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if LONG or fault.short], ids=lambda fault: fault.name)
def test_no_image_is_lost_and_none_is_lied_about(rig, fault):
    if not possible(fault):
        pytest.skip("this machine cannot have that fault")
    hold(rig, fault)


@pytest.mark.skipif(not LONG, reason="part of make test-faults")
@pytest.mark.parametrize("seed", RANDOM_SEEDS)
def test_no_image_is_lost_when_faults_come_one_into_the_other(rig, seed):
    hold(rig, make_random(seed))


def hold(rig, fault):
    report = undergo(rig, fault, timed=LONG)
    print(f"\n{json.dumps(report.as_json())}")  # with -s: the rows of docs/reliability.md
    assert not report.findings, f"{report.as_json()}\nlogs in {rig.folder}"
