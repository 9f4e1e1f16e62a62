"""What automatic rescans go by, and what is known of that after a restart."""

import pytest

from fediwarden.rescan.automatic import ListVersions, judged_by, orderer, span_ms
from fediwarden.rescan.jobs import Jobs
from fediwarden.rescan.planning import policies_of_settings, policy_ids
from fediwarden.rescan.watching import InForce, Kind
from fediwarden.settings import load_settings
from gateway.lists.definition import ListDefinition
from gateway.lists.hashes import HashSet
from gateway.lists.kinds import HashKind
from gateway.lists.store import ListStore, Suspension
from schemas.broker import Received
from schemas.messages import RescanOrdered, RescanState, RescanTier
from schemas.topics import RESCAN_JOBS

SETTINGS = load_settings()
BEFORE = InForce({"m": "1"}, {"default": "p"})


def jobs(*all_jobs: RescanOrdered) -> Jobs:
    made = Jobs()
    for number, job in enumerate(all_jobs):
        made.observe(Received(RESCAN_JOBS, 0, number, 0, job.rescan.encode(), job, None, 1))
    return made


def job(kind: Kind, number: int, *, by: str = "", state: RescanState = RescanState.FINISHED, **fields: object):
    return RescanOrdered.model_validate(
        {
            "rescan": f"r{number}",
            "tier": RescanTier.SCORES,
            "state": state,
            "since": 0,
            "until": 1,
            "spans": (),
            "ordered_by": by or orderer(kind),
            "ordered_at": number,
            "changed_at": number,
            **fields,
        }
    )


def test_the_latest_automatic_rescan_of_a_kind_says_what_it_went_by():
    texts = policies_of_settings(SETTINGS)
    found = judged_by(
        SETTINGS,
        jobs(
            job("model", 1, models={"m": "2"}),
            job("model", 2, models={"m": "3"}),
            job("model", 3, models={"m": "4"}, state=RescanState.CANCELLED),
            job("lists", 4, lists={"known": "v1"}),
            job("lists", 5, lists={"known": "v2"}, by="ada"),
            job("policy", 6, policies=texts),
        ),
        BEFORE,
    )
    assert found == InForce({"m": "3"}, policy_ids(SETTINGS, texts), {"known": "v1"})


def test_without_one_the_verdicts_say_it():
    assert judged_by(SETTINGS, jobs(), BEFORE) == BEFORE
    assert judged_by(SETTINGS, jobs(job("policy", 1, policies={"*": "no policy"})), BEFORE) == BEFORE


def test_lists_in_force_are_those_of_others_that_are_not_suspended_or_expired(tmp_path):
    settings = load_settings({"gateway": {"lists": {"folder": tmp_path}}})
    store = ListStore(tmp_path)
    hashes = HashSet.of({HashKind.PDQ: [b"\1" * 32]})
    for name, source, expires_at in (("theirs", "/a", None), ("gone", "/b", 100), ("own", "", None)):
        store.save(ListDefinition(name=name, source=source, expires_at=expires_at), hashes)
    versions = ListVersions(settings)
    assert set(versions.read(50)) == {"theirs", "gone"}
    assert set(versions.read(100)) == {"theirs"}
    store.suspend("theirs", Suspension(version="", matched=1, images=1, at=1, by="t"))
    assert versions.read(100) == {}


@pytest.mark.parametrize(("text", "milliseconds"), [("90s", 90_000), ("12h", 43_200_000), ("7d", 604_800_000)])
def test_spans_are_read_as_they_are_written(text, milliseconds):
    assert span_ms(text) == milliseconds
