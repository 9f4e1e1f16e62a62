"""What the demo says came out: it must not be content with anything else than what has to be."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import pytest

from federation_audit.accounts.roles import Role
from federation_audit.accounts.users import Users
from federation_audit.statistics.levels import Level
from federation_audit.store.engine import Store
from federation_audit.store.migrating import open_store
from fediwarden.demo.outcome import Arrived, Finding, faults_of, read_arrived, read_findings
from fediwarden.demo.reviewers import add_accounts, read_flagged, review
from fediwarden.demo.world import HOME, Post, make_week
from schemas.messages import Decision, Message, Stage
from tests.pages import cheap_passwords
from tests.stores import judged, pdq, seen, sha, write

TODAY = date(2026, 11, 14)
NOW = datetime(2026, 11, 14, 12, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
WEEK = make_week()
POSTS = {sha(post.number): post for post in WEEK}


def moment(post: Post) -> int:
    return int(post.posted_at(NOW).timestamp() * 1000)


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path / 'audit.sqlite'}") as opened:
        yield opened


def fill(store: Store, week: Sequence[Post] = WEEK, *, unseen: str = "nobody.example", mistakes: int = 100) -> None:
    """The week as the pipeline writes it: stars found by the list, but for those of `unseen`, and one harmless image of
    `mistakes` flagged."""
    messages: list[Message] = []
    for post in week:
        star = post.motif.forbidden
        if star and post.instance != unseen:
            look = pdq(1_000_000 + post.motif.number, off=post.copy)
            verdict = judged(
                post.number, Decision.REJECT, looks=[look], at=NOW_MS, stage=Stage.LIST, hash_list="demo@1"
            )
        else:
            wrong = not star and post.number % mistakes == 0
            verdict = judged(post.number, Decision.REVIEW if wrong else Decision.ACCEPT, at=NOW_MS)
        messages.append(verdict)
        if post.instance:
            messages.append(seen(post.number, post.instance, actor=post.account, at=moment(post), post=post.post_url))
    write(store, messages)


def test_all_is_well_when_the_pipeline_loses_nothing_and_people_did_their_part(store):
    fill(store)
    assert read_arrived(store, POSTS) == Arrived(len(WEEK), sum(bool(post.instance) for post in WEEK))
    done = review(store, POSTS)
    assert review(store, POSTS) == done  # to go on after an interruption does no harm
    assert done.confirmed + done.dismissed + done.unsure + done.waiting == len(read_flagged(store))
    assert min(done.confirmed, done.dismissed, done.unsure, done.waiting) > 0
    findings = read_findings(store, WEEK, TODAY, TODAY)
    assert faults_of(store, findings, POSTS) == []
    levels = {each.domain: each.level for each in findings}
    assert levels["starfall.example"] is Level.RECOMMEND
    assert levels["twilight.example"] is Level.RESTRICT
    assert levels[HOME] is None


def test_nothing_arrived(store):
    assert read_arrived(store, POSTS) == Arrived(0, 0)
    faults = faults_of(store, read_findings(store, WEEK, TODAY, TODAY), POSTS)
    assert f"{len([post for post in WEEK if post.motif.forbidden])} forbidden pictures were not flagged." in faults
    assert any("starfall.example is at level 0" in fault for fault in faults)


def test_nobody_reviewed(store):
    fill(store)
    faults = faults_of(store, read_findings(store, WEEK, TODAY, TODAY), POSTS)
    assert [fault.split()[0] for fault in faults] == ["starfall.example", "twilight.example"]


def test_the_list_missed_an_instance(store):
    fill(store, unseen="starfall.example")
    review(store, POSTS)
    faults = faults_of(store, read_findings(store, WEEK, TODAY, TODAY), POSTS)
    assert len(faults) == 2
    assert "not flagged" in faults[0]
    assert "starfall.example is at level 0" in faults[1]


@pytest.mark.parametrize("mistakes", [10, 1_000_000])
def test_the_policy_flags_too_many_or_none(store, mistakes):
    fill(store, mistakes=mistakes)
    review(store, POSTS)
    faults = faults_of(store, read_findings(store, WEEK, TODAY, TODAY), POSTS)
    assert any("harmless pictures are flagged; about 1 % should be" in fault for fault in faults)


def test_an_innocent_one_that_is_accused_is_a_fault(store):
    findings = [
        Finding("meadow.example", "", 100, 3, 3, Level.RESTRICT, Level.RESTRICT),
    ]
    assert "meadow.example is innocent, and is at level 2 restrict." in faults_of(store, findings, {})


def test_accounts_are_made_once(store):
    passwords = {name: f"plain words of {name}" for name in ("admin", "alice", "bob")}
    add_accounts(store, passwords)
    add_accounts(store, passwords)
    users = Users(store, cheap_passwords()).all()
    assert {user.name: user.role for user in users} == {
        "admin": Role.ADMIN,
        "alice": Role.REVIEWER,
        "bob": Role.REVIEWER,
    }
    assert not any(user.must_change for user in users)
