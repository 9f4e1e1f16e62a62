"""The journal in the store: on disk before anything leaves, once, and honest about what nobody knows."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select

from federation_audit.accounts.actions import Actor
from federation_audit.accounts.tables import ACTIONS
from federation_audit.sending.confirming import Channel, Confirmation, Outcome, Plan
from federation_audit.sending.dispatching import dispatch
from federation_audit.sending.errors import Changed, NotConfirmed
from federation_audit.sending.journal import ABANDONED, StoreJournal, entries_about, entry_of
from federation_audit.sending.lemmy_1_0 import Lemmy10
from federation_audit.store.engine import Store
from tests.stores import open_store, sqlite_url
from tests.unit.federation_audit.samples import NOW, judged
from tests.unit.federation_audit.sides import LemmyNew

BAD = "bad.example"
ADA = Actor("ada")
PATIENT_S = 120.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(sqlite_url(tmp_path)) as opened:
        yield opened


@pytest.fixture
def lemmy() -> Iterator[LemmyNew]:
    with LemmyNew({}).running() as side:
        assert isinstance(side, LemmyNew)
        yield side


def whats(store: Store) -> list[str]:
    with store.reading() as connection:
        return list(connection.scalars(select(ACTIONS.c.what).order_by(ACTIONS.c.id)))


def confirmed(plan: Plan) -> Confirmation:
    return Confirmation("ada", NOW, plan.digest)


def test_what_was_sent_is_in_the_store_with_what_came_of_it(store: Store, lemmy: LemmyNew) -> None:
    async def send() -> Plan:
        side = Lemmy10(lemmy.url, lemmy.jwt, answer_within_s=PATIENT_S)
        plan = await side.plan(judged())
        await dispatch(plan, confirmed(plan), side, StoreJournal(store, ADA, BAD), at=NOW)
        await side.close()
        return plan

    plan = asyncio.run(send())
    with store.reading() as connection:
        (entry,) = entries_about(connection, BAD)
    assert (entry.digest, entry.channel, entry.to) == (plan.digest, Channel.LEMMY_1_0, lemmy.url)
    assert (entry.outcome, entry.status, entry.confirmed_by) == ("accepted", 200, "ada")
    assert entry.payload == plan.payload and entry.changes == plan.changes
    assert not entry.is_interrupted and entry.finished_at is not None and entry.begun_at <= entry.finished_at
    assert whats(store) == ["sending begun", "sent"]
    with store.reading() as connection:
        details = str(connection.scalars(select(ACTIONS.c.detail)).all())
    assert plan.digest in details and lemmy.jwt not in details


def test_a_digest_is_begun_once_however_many_try_at_once(store: Store) -> None:
    plan = Plan(Channel.MAIL, "abuse@bad.example", "mail", {"text": "x"}, ("y",), "nonce")

    async def everybody() -> list[object]:
        journals = [StoreJournal(store, ADA, BAD) for _ in range(8)]
        return await asyncio.gather(*(each.begin(plan, confirmed(plan)) for each in journals), return_exceptions=True)

    outcomes = asyncio.run(everybody())
    assert outcomes.count(None) == 1
    assert sum(isinstance(each, NotConfirmed) for each in outcomes) == 7
    assert whats(store) == ["sending begun"]


def test_what_did_not_leave_after_all_is_marked_as_that(store: Store, lemmy: LemmyNew) -> None:
    async def send() -> Plan:
        side = Lemmy10(lemmy.url, lemmy.jwt, answer_within_s=PATIENT_S)
        plan = await side.plan(judged())
        lemmy.blocked["bad.example"] = 7
        with pytest.raises(Changed):
            await dispatch(plan, confirmed(plan), side, StoreJournal(store, ADA, BAD), at=NOW)
        await side.close()
        return plan

    plan = asyncio.run(send())
    with store.reading() as connection:
        entry = entry_of(connection, plan.digest)
    assert entry is not None and entry.outcome == ABANDONED and not entry.is_interrupted
    assert lemmy.written() == []
    assert whats(store) == ["sending begun", "not sent after all"]


CHILD = """
import asyncio, sys
from dataclasses import replace
from federation_audit.accounts.actions import Actor
from federation_audit.sending.confirming import Confirmation
from federation_audit.sending.dispatching import dispatch
from federation_audit.sending.journal import StoreJournal
from federation_audit.sending.lemmy_1_0 import Lemmy10
from federation_audit.store.engine import Store
from tests.unit.federation_audit.samples import NOW, judged

async def main(url, address, jwt):
    side = Lemmy10(address, jwt, answer_within_s=600.0)
    plan = replace(await side.plan(judged()), nonce="one")
    journal = StoreJournal(Store(url), Actor("ada"), "bad.example")
    await dispatch(plan, Confirmation("ada", NOW, plan.digest), side, journal, at=NOW)

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_process_that_is_killed_while_it_sends_leaves_an_entry_and_nobody_sends_it_again(
    store: Store, lemmy: LemmyNew, tmp_path: Path
) -> None:
    lemmy.silent.add("POST")
    child = subprocess.Popen([sys.executable, "-c", CHILD, sqlite_url(tmp_path), lemmy.url, lemmy.jwt])
    try:
        end = time.monotonic() + 120
        while not lemmy.written() and time.monotonic() < end:
            assert child.poll() is None
            time.sleep(0.02)
        assert len(lemmy.written()) == 1
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait(60)
    with store.reading() as connection:
        (entry,) = entries_about(connection, BAD)
    assert entry.is_interrupted and entry.outcome == Outcome.UNKNOWN.value and entry.confirmed_by == "ada"
    lemmy.silent.clear()

    async def again() -> None:
        side = Lemmy10(lemmy.url, lemmy.jwt, answer_within_s=PATIENT_S)
        plan = replace(await side.plan(judged()), nonce="one")
        assert plan.digest == entry.digest
        with pytest.raises(NotConfirmed, match="sent before"):
            await dispatch(plan, confirmed(plan), side, StoreJournal(store, ADA, BAD), at=NOW)
        await side.close()

    asyncio.run(again())
    assert len(lemmy.written()) == 1


def test_what_follows_from_a_sending_is_in_its_last_entrys_transaction(store: Store, lemmy: LemmyNew) -> None:
    async def send() -> Plan:
        def fail(*_: object) -> None:
            raise ValueError("as told")

        side = Lemmy10(lemmy.url, lemmy.jwt, answer_within_s=PATIENT_S)
        plan = await side.plan(judged())
        with pytest.raises(ValueError, match="as told"):
            await dispatch(plan, confirmed(plan), side, StoreJournal(store, ADA, BAD, then=fail), at=NOW)
        await side.close()
        return plan

    plan = asyncio.run(send())
    with store.reading() as connection:
        entry = entry_of(connection, plan.digest)
    assert entry is not None and entry.is_interrupted  # not "accepted" without what belongs to it


def test_an_entry_outlives_a_power_cut_right_after(store: Store) -> None:
    with store.writing(durably=True) as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    with store.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
        assert connection.execute(select(func.count()).select_from(ACTIONS)).scalar() == 0
