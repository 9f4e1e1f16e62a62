"""Shown, confirmed, sent once, recorded: against servers that keep to the documented interfaces."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from federation_audit.cases import Action
from federation_audit.exports.coop import CoopTypes
from federation_audit.exports.export import NotExpressible
from federation_audit.exports.fediseer import Opinion
from federation_audit.sending.confirming import Confirmation, Outcome, Plan, Sent
from federation_audit.sending.coop import Coop
from federation_audit.sending.dispatching import Sender, dispatch
from federation_audit.sending.errors import (
    Changed,
    NotConfirmed,
    NothingToDo,
    SideBusy,
    SideRefused,
    SideUnexpected,
    SideUnreachable,
)
from federation_audit.sending.fediseer import Fediseer
from federation_audit.sending.lemmy_0_19 import Lemmy019
from federation_audit.sending.lemmy_1_0 import Lemmy10
from federation_audit.sending.mastodon import Mastodon
from tests.kafka import find_free_ports
from tests.unit.federation_audit.samples import NOW, case, incident, judged
from tests.unit.federation_audit.sides import CoopSide, FediseerSide, LemmyNew, LemmyOld, MastodonSide, Side

Result = TypeVar("Result")

PATIENT = {"answer_within_s": 120.0}  # a busy machine is slow on loopback, too


def ask(side: Any, question: Callable[[Any], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        try:
            return await question(side)
        finally:
            await side.close()

    return asyncio.run(run())


def confirmation(plan: Plan, **changes: Any) -> Confirmation:
    return replace(Confirmation("alice", NOW, plan.digest), **changes)


def plan_and_send(sender: Callable[[], Any], planning: Callable[[Any], Awaitable[Plan]]) -> tuple[Plan, Sent]:
    async def both(side: Any) -> tuple[Plan, Sent]:
        plan = await planning(side)
        return plan, await side.send(plan, confirmation(plan), at=NOW)

    return ask(sender(), both)


@pytest.fixture
def old() -> Iterator[LemmyOld]:
    with LemmyOld(["kept.example", "Also-Kept.example"]).running() as side:
        assert isinstance(side, LemmyOld)
        yield side


@pytest.fixture
def new() -> Iterator[LemmyNew]:
    with LemmyNew({"kept.example": None, "a.notbad.example": None, "b.notbad.example": 1}).running() as side:
        assert isinstance(side, LemmyNew)
        yield side


def lemmy_old(side: Side, jwt: str = "admin-jwt") -> Lemmy019:
    return Lemmy019(side.url, jwt, **PATIENT)


def test_lemmy_0_19_gets_the_union_and_the_plan_says_so_before(old: LemmyOld) -> None:
    plan, record = plan_and_send(lambda: lemmy_old(old), lambda side: side.plan([judged()]))
    assert plan.changes[:2] == ("bad.example will be blocked", "the 2 present blocks stay as they are")
    assert "bad.example will be blocked" in plan.as_text()
    (put,) = old.written()
    assert put.body == {"blocked_instances": ["kept.example", "Also-Kept.example", "bad.example"]}
    assert old.blocked == put.body["blocked_instances"]
    assert (record.outcome, record.status, record.confirmed_by) == (Outcome.ACCEPTED, 200, "alice")
    assert record.digest == plan.digest


def test_a_plan_alone_writes_nothing(old: LemmyOld) -> None:
    ask(lemmy_old(old), lambda side: side.plan([judged()]))
    assert old.written() == []


def test_a_list_that_changed_between_look_and_word_is_not_overwritten(old: LemmyOld) -> None:
    async def changed(side: Lemmy019) -> None:
        plan = await side.plan([judged()])
        old.blocked.append("added-meanwhile.example")
        await side.send(plan, confirmation(plan), at=NOW)

    with pytest.raises(Changed, match="look at the difference again"):
        ask(lemmy_old(old), changed)
    assert old.written() == []
    assert "added-meanwhile.example" in old.blocked


def test_a_block_that_is_gone_after_the_call_is_not_reported_as_done(old: LemmyOld) -> None:
    def lose(asked: Any) -> None:
        if old.written() and asked.method == "GET":
            old.blocked = ["kept.example"]

    old.before = lose
    _, record = plan_and_send(lambda: lemmy_old(old), lambda side: side.plan([judged()]))
    assert record.outcome is Outcome.UNKNOWN
    assert "not blocked afterwards: Also-Kept.example, bad.example" in record.answer


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: replace(plan, payload={"blocked_instances": ["bad.example"]}),
        lambda plan: replace(plan, to="https://other.example"),
        lambda plan: replace(plan, changes=("nothing much",)),
        lambda plan: replace(plan, nonce="0"),
        lambda plan: replace(plan, basis=""),
    ],
)
def test_what_was_not_shown_is_not_sent(old: LemmyOld, change: Callable[[Plan], Plan]) -> None:
    async def tampered(side: Lemmy019) -> None:
        plan = await side.plan([judged()])
        await side.send(change(plan), confirmation(plan), at=NOW)

    with pytest.raises(NotConfirmed):
        ask(lemmy_old(old), tampered)
    assert old.written() == []


def test_a_confirmation_by_nobody_is_none(old: LemmyOld) -> None:
    async def anonymous(side: Lemmy019) -> None:
        plan = await side.plan([judged()])
        await side.send(plan, confirmation(plan, by=" "), at=NOW)

    with pytest.raises(NotConfirmed, match="names the person"):
        ask(lemmy_old(old), anonymous)


def test_lemmy_0_19_that_blocks_it_already_or_lives_by_an_allowlist_is_left_alone(old: LemmyOld) -> None:
    old.blocked.append("BAD.example")
    with pytest.raises(NothingToDo):
        ask(lemmy_old(old), lambda side: side.plan([judged()]))
    old.allowed.append("friend.example")
    with pytest.raises(SideUnexpected, match="allowlist"):
        ask(lemmy_old(old), lambda side: side.plan([judged()]))
    old.federates = False
    with pytest.raises(SideUnexpected, match="federation is off"):
        ask(lemmy_old(old), lambda side: side.plan([judged()]))


def test_a_token_that_is_not_taken_is_in_the_record_as_refused(old: LemmyOld) -> None:
    _, record = plan_and_send(lambda: lemmy_old(old, "wrong"), lambda side: side.plan([judged()]))
    assert (record.outcome, record.status) == (Outcome.REFUSED, 401)
    assert "incorrect_login" in record.answer
    assert old.blocked == ["kept.example", "Also-Kept.example"]


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, SideRefused), (403, SideRefused), (404, SideUnexpected), (409, SideUnexpected), (500, SideUnexpected)],
)
def test_a_side_that_cannot_be_read_is_not_written_to(old: LemmyOld, status: int, error: type[Exception]) -> None:
    old.failing["GET"] = status
    with pytest.raises(error, match=str(status)):
        ask(lemmy_old(old), lambda side: side.plan([judged()]))


def test_a_side_that_has_had_enough_says_when_to_come_again(old: LemmyOld) -> None:
    old.failing["GET"] = 429
    with pytest.raises(SideBusy) as busy:
        ask(lemmy_old(old), lambda side: side.plan([judged()]))
    assert busy.value.retry_after_s == 17


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(404, Outcome.REFUSED), (409, Outcome.REFUSED), (429, Outcome.REFUSED), (302, Outcome.UNKNOWN)],
)
def test_what_was_answered_to_the_call_is_what_the_record_says(new: LemmyNew, status: int, outcome: Outcome) -> None:
    new.failing["POST"] = status
    _, record = plan_and_send(lambda: Lemmy10(new.url, new.jwt, **PATIENT), lambda side: side.plan(judged()))
    assert (record.outcome, record.status) == (outcome, status)


def test_a_server_that_fails_may_have_done_it(new: LemmyNew) -> None:
    new.failing["POST"] = 500
    _, record = plan_and_send(lambda: Lemmy10(new.url, new.jwt, **PATIENT), lambda side: side.plan(judged()))
    assert (record.outcome, record.status) == (Outcome.UNKNOWN, 500)


def test_silence_is_waited_for_only_so_long_and_may_have_been_a_yes() -> None:
    with FediseerSide().running() as side:
        side.silent.add("PUT")
        _, record = plan_and_send(
            lambda: Fediseer("fediseer-key", address=side.url, answer_within_s=1.0),
            lambda one: planned(one.plan(judged(), HESITATION)),
        )
    assert (record.outcome, record.status) == (Outcome.UNKNOWN, None)


def test_lemmy_0_19_that_hung_up_after_it_had_done_it_is_looked_at_again(old: LemmyOld) -> None:
    def do_it(asked: Any) -> None:
        if asked.method == "PUT":
            old.blocked = asked.body["blocked_instances"]

    old.before = do_it
    old.failing["PUT"] = 502
    _, record = plan_and_send(lambda: lemmy_old(old), lambda side: side.plan([judged()]))
    assert (record.outcome, record.status) == (Outcome.ACCEPTED, 502)


def test_nobody_listening_means_nothing_sent() -> None:
    port = find_free_ports(1)
    with pytest.raises(SideUnreachable):
        ask(Lemmy019(f"http://127.0.0.1:{port}", "x"), lambda side: side.plan([judged()]))
    with pytest.raises(SideUnreachable, match="nothing was sent"):
        plan_and_send(
            lambda: Fediseer("k", address=f"http://127.0.0.1:{port}"),
            lambda side: planned(side.plan(judged(), HESITATION)),
        )


HESITATION = Opinion.HESITATION


async def planned(plan: Plan) -> Plan:
    return plan


def test_lemmy_1_0_gets_one_call_with_its_end_and_no_other_block_is_touched(new: LemmyNew) -> None:
    until = datetime(2027, 1, 1, tzinfo=UTC)
    plan, record = plan_and_send(
        lambda: Lemmy10(new.url, new.jwt, **PATIENT), lambda side: side.plan(judged(until=until))
    )
    assert plan.changes[0] == "bad.example will be blocked until 2027-01-01"
    assert new.blocked == {
        "kept.example": None,
        "a.notbad.example": None,
        "b.notbad.example": 1,
        "bad.example": 1798761600,
    }
    assert record.outcome is Outcome.ACCEPTED


def test_a_block_without_an_end_never_gets_one(new: LemmyNew) -> None:
    new.blocked["bad.example"] = None
    with pytest.raises(NothingToDo):
        ask(Lemmy10(new.url, new.jwt, **PATIENT), lambda side: side.plan(judged()))


def test_a_block_is_lifted_by_a_decision_too_unless_somebody_changed_it_meanwhile(new: LemmyNew) -> None:
    new.blocked["bad.example"] = 5

    async def changed(side: Lemmy10) -> None:
        plan = await side.plan(judged(), block=False)
        new.blocked["bad.example"] = None
        await side.send(plan, confirmation(plan), at=NOW)

    with pytest.raises(Changed):
        ask(Lemmy10(new.url, new.jwt, **PATIENT), changed)
    _, record = plan_and_send(
        lambda: Lemmy10(new.url, new.jwt, **PATIENT), lambda side: side.plan(judged(), block=False)
    )
    assert record.outcome is Outcome.ACCEPTED
    assert "bad.example" not in new.blocked


def test_the_wrong_lemmy_is_told_apart(old: LemmyOld, new: LemmyNew) -> None:
    with pytest.raises(SideUnexpected, match="is this its address"):
        ask(Lemmy10(old.url, old.jwt, **PATIENT), lambda side: side.plan(judged()))
    with pytest.raises(SideUnexpected, match="is this its address"):
        ask(Lemmy019(new.url, new.jwt, **PATIENT), lambda side: side.plan([judged()]))


def mastodon(side: MastodonSide) -> Callable[[], Mastodon]:
    return lambda: Mastodon(side.url, side.token, **PATIENT)


BLOCKS = [
    {"domain": "silenced.example", "severity": "silence", "reject_media": False, "private_comment": "old words"},
    {"domain": "gone.example", "severity": "suspend", "reject_media": False},
    {"domain": "parent.example", "severity": "noop", "reject_media": True},
    {"domain": "x1.example", "severity": "suspend", "reject_media": False},
    {"domain": "x2.example", "severity": "suspend", "reject_media": False},
]


def test_mastodon_gets_the_proportionate_block() -> None:
    with MastodonSide(BLOCKS).running() as side:
        assert isinstance(side, MastodonSide)
        plan, record = plan_and_send(mastodon(side), lambda one: one.plan(judged(Action.RESTRICT_MEDIA)))
        assert record.outcome is Outcome.ACCEPTED
        (post,) = side.written()
        assert (post.body["severity"], post.body["reject_media"]) == ("noop", True)
        assert post.body["private_comment"] == "nobody answers there (alice, 2026-11-28, until 2027-02-26)"
        assert len(side.blocks) == 6
        plan, _ = plan_and_send(mastodon(side), lambda one: one.plan(judged()))
        assert plan.request == "PUT /api/v1/admin/domain_blocks/6"
        assert plan.changes[0] == "bad.example: federated with becomes suspended; its media will not be taken"
        assert side.blocks["6"]["private_comment"] == post.body["private_comment"]


@pytest.mark.parametrize(
    ("domain", "action"),
    [
        ("gone.example", Action.DEFEDERATE),
        ("gone.example", Action.RESTRICT_MEDIA),
        ("sub.gone.example", Action.DEFEDERATE),
        ("sub.parent.example", Action.RESTRICT_MEDIA),
    ],
)
def test_a_block_of_mastodons_that_is_as_strict_is_left_alone(domain: str, action: Action) -> None:
    with MastodonSide(BLOCKS).running() as side:
        assert isinstance(side, MastodonSide)
        with pytest.raises(NothingToDo):
            ask(mastodon(side)(), lambda one: one.plan(judged(action, domain=domain)))
        assert side.written() == []


def test_a_block_of_mastodons_only_ever_becomes_stricter() -> None:
    with MastodonSide(BLOCKS).running() as side:
        assert isinstance(side, MastodonSide)
        restrict = judged(Action.RESTRICT_MEDIA, domain="silenced.example")
        plan_and_send(mastodon(side), lambda one: one.plan(restrict))
        assert side.blocks["1"] == {
            "id": "1",
            "domain": "silenced.example",
            "severity": "silence",
            "reject_media": True,
            "private_comment": "old words",
        }
        with pytest.raises(SideUnexpected, match="change that one there"):
            ask(mastodon(side)(), lambda one: one.plan(judged(domain="sub.parent.example")))


def test_a_block_of_mastodons_that_changed_meanwhile_is_looked_at_again() -> None:
    with MastodonSide(BLOCKS).running() as side:
        assert isinstance(side, MastodonSide)
        blocks = side.blocks

        async def changed(one: Mastodon) -> None:
            plan = await one.plan(judged())
            blocks["6"] = {"id": "6", "domain": "bad.example", "severity": "silence", "reject_media": False}
            await one.send(plan, confirmation(plan), at=NOW)

        with pytest.raises(Changed):
            ask(mastodon(side)(), changed)
        assert side.written() == []
        with pytest.raises(SideRefused, match="scopes"):
            ask(Mastodon(side.url, "wrong", **PATIENT), lambda one: one.plan(judged()))


def test_fediseer_is_told_once_and_what_was_said_before_stays() -> None:
    with FediseerSide().running() as side:
        for answer in ("Changed", "there was one already"):
            _, record = plan_and_send(
                lambda: Fediseer("fediseer-key", address=side.url, **PATIENT),
                lambda one: planned(one.plan(judged(), HESITATION)),
            )
            assert record.outcome is Outcome.ACCEPTED
            assert answer in record.answer
        assert side.asked[0].path == "/api/v1/hesitations/bad.example"
        _, record = plan_and_send(
            lambda: Fediseer("wrong", address=side.url, **PATIENT), lambda one: planned(one.plan(judged(), HESITATION))
        )
        assert (record.outcome, record.status) == (Outcome.REFUSED, 404)
        with pytest.raises(NotExpressible):
            Fediseer("k", address=side.url).plan(judged(Action.NONE), HESITATION)


def test_coop_is_handed_an_incident() -> None:
    types = CoopTypes("incident", "person")
    with CoopSide().running() as side:
        made, record = plan_and_send(
            lambda: Coop(side.url, "coop-key", types, **PATIENT),
            lambda one: planned(one.plan(case(), incident(1), reporter="alice", at=NOW)),
        )
        assert (record.outcome, record.status) == (Outcome.ACCEPTED, 201)
        assert "4711" in record.answer
        assert made.payload == side.asked[0].body
        _, record = plan_and_send(
            lambda: Coop(side.url, "wrong", types, **PATIENT),
            lambda one: planned(one.plan(case(), incident(1), reporter="alice", at=NOW)),
        )
        assert (record.outcome, record.status) == (Outcome.REFUSED, 401)


def test_no_secret_is_in_a_plan_or_a_record(old: LemmyOld) -> None:
    plan, record = plan_and_send(lambda: lemmy_old(old), lambda side: side.plan([judged()]))
    assert "admin-jwt" not in plan.as_text() + repr(plan) + repr(record)


class Memory:
    """A journal in memory."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.entries: list[Any] = []

    async def begin(self, plan: Plan, confirmation: Confirmation) -> None:
        if plan.digest in self.begun:
            raise NotConfirmed("this was confirmed and sent before")
        self.begun.append(plan.digest)
        self.entries.append("begun")

    async def finish(self, record: Sent) -> None:
        self.entries.append(record)

    async def abandon(self, plan: Plan) -> None:
        self.entries.append("abandoned")


def test_one_confirmation_is_good_for_one_sending_and_both_ends_are_in_the_journal(new: LemmyNew) -> None:
    journal = Memory()

    async def twice(side: Lemmy10) -> None:
        plan = await side.plan(judged())
        record = await dispatch(plan, confirmation(plan), side, journal, at=NOW)
        assert journal.entries == ["begun", record]
        await dispatch(plan, confirmation(plan), side, journal, at=NOW)

    with pytest.raises(NotConfirmed, match="sent before"):
        ask(Lemmy10(new.url, new.jwt, **PATIENT), twice)
    assert len(new.written()) == 1


def test_what_was_not_sent_after_all_is_in_the_journal_as_that(new: LemmyNew) -> None:
    journal = Memory()

    async def refused(side: Lemmy10) -> None:
        plan = await side.plan(judged())
        new.blocked["bad.example"] = 7
        await dispatch(plan, confirmation(plan), side, journal, at=NOW)

    with pytest.raises(Changed):
        ask(Lemmy10(new.url, new.jwt, **PATIENT), refused)
    assert journal.entries == ["begun", "abandoned"]


def test_what_is_interrupted_is_in_the_journal_as_perhaps_sent(new: LemmyNew) -> None:
    journal = Memory()
    new.silent.add("POST")

    async def interrupted(side: Lemmy10) -> None:
        plan = await side.plan(judged())
        sending: Sender = side
        task = asyncio.create_task(dispatch(plan, confirmation(plan), sending, journal, at=NOW))
        async with asyncio.timeout(60):
            while not new.written():
                await asyncio.sleep(0.02)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        ask(Lemmy10(new.url, new.jwt, **PATIENT), interrupted)
    assert journal.entries[0] == "begun"
    assert journal.entries[1].outcome is Outcome.UNKNOWN
