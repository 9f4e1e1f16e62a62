"""Decisions and what people write about instances: who, why, until when; and nothing without its entry in the log."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from sqlalchemy import Connection, select

from federation_audit.accounts.actions import Actor, as_action
from federation_audit.accounts.tables import ACTIONS
from federation_audit.cases import Action, Contact, ContactKind, Level
from federation_audit.deciding.addresses import (
    ADDRESSES_MOST,
    addresses_of,
    give_address,
    keep_found,
    take_away_address,
)
from federation_audit.deciding.decisions import (
    State,
    Taken,
    decide,
    decision_in_force,
    decisions_due,
    decisions_expiring,
    decisions_in_force,
    decisions_of,
    open_decision,
    withdraw,
)
from federation_audit.deciding.errors import DecidedMeanwhile, NotDecided, NotThere
from federation_audit.deciding.letters import letters_of, write_down_answer, write_down_letter
from federation_audit.deciding.notes import note, notes_of
from federation_audit.deciding.recommending import waiting
from federation_audit.deciding.remediations import cleanups_of, take_back_cleanup, write_down_cleanup
from federation_audit.store.engine import Store
from schemas.domains import NotADomain
from schemas.topics import DAY_MS

NOW = 20_600 * DAY_MS + 40_000_000
DAY = date(2026, 5, 27)
ADA = Actor("ada", "192.0.2.0/24")
BAD = "bad.example"


def taken(connection: Connection, action: Action = Action.RESTRICT_MEDIA, **changes: Any) -> Taken:
    given: dict[str, Any] = {"level": Level.RECOMMEND, "days": 90, "at": NOW} | changes
    domain = given.pop("domain", BAD)
    reason = given.pop("reason", "nobody answers")
    return decide(connection, given.pop("actor", ADA), domain, action, reason, **given)


def logged(connection: Connection) -> list[tuple[str, str, str]]:
    rows = connection.execute(select(ACTIONS).order_by(ACTIONS.c.id))
    return [(each.who, each.what, each.about) for each in map(as_action, rows)]


def test_a_decision_is_in_force_until_its_end_and_then_comes_back(store: Store) -> None:
    with store.writing() as connection:
        made = taken(connection, days=30)
    assert (made.domain, made.action, made.by, made.until) == (BAD, Action.RESTRICT_MEDIA, "ada", NOW + 30 * DAY_MS)
    with store.reading() as connection:
        assert decision_in_force(connection, BAD, NOW) == made
        assert made.state(NOW) is State.IN_FORCE and decisions_expiring(connection, NOW) == []
        assert decisions_expiring(connection, NOW, days=30) == [made]
        before, after = NOW + 30 * DAY_MS - 1, NOW + 30 * DAY_MS
        assert decisions_in_force(connection, before) == [made] and decisions_due(connection, before) == []
        assert made.state(before) is State.EXPIRING
        assert decisions_in_force(connection, after) == [] and decisions_due(connection, after) == [made]
        assert decision_in_force(connection, BAD, after) is None and open_decision(connection, BAD) == made
        assert logged(connection) == [("ada", "decided", BAD)]


def test_a_new_decision_replaces_the_one_in_force_and_the_old_one_stays_on_record(store: Store) -> None:
    with store.writing() as connection:
        first = taken(connection)
        second = taken(connection, Action.DEFEDERATE, at=NOW + 5, reason="still going on")
    with store.reading() as connection:
        assert decisions_in_force(connection, NOW + 6) == [second]
        assert decisions_of(connection, BAD) == [second, replace(first, ended_at=NOW + 5)]
        detail = as_action(connection.execute(select(ACTIONS).order_by(ACTIONS.c.id.desc())).first()).detail
    assert detail == {
        "action": "defederate",
        "days": 90,
        "instead of": "restrict-media",
        "level": 3,
        "reason": "still going on",
    }


def test_nobody_replaces_a_decision_that_they_have_not_seen(store: Store) -> None:
    with store.writing() as connection:
        first = taken(connection, instead_of=None)
        for seen in (None, first.id + 1):
            with pytest.raises(DecidedMeanwhile, match="ada decided"):
                taken(connection, instead_of=seen)
        taken(connection, instead_of=first.id)


def test_of_two_who_decide_at_once_one_is_told(store: Store) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(2)

    def run(name: str) -> None:
        start.wait(60)
        try:
            with store.writing() as connection:
                taken(connection, actor=Actor(name), instead_of=None)
            outcomes.append("decided")
        except DecidedMeanwhile:
            outcomes.append("told")

    threads = [threading.Thread(target=run, args=(name,)) for name in ("ada", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(outcomes) == ["decided", "told"]
    with store.reading() as connection:
        assert len(decisions_of(connection, BAD)) == 1 and len(logged(connection)) == 1


@pytest.mark.parametrize(
    ("action", "level", "days", "fine"),
    [
        (Action.NONE, Level.WATCH, None, True),
        (Action.CONTACT, Level.INSUFFICIENT, None, True),
        (Action.NONE, Level.RESTRICT, None, False),
        (Action.CONTACT, Level.RECOMMEND, None, False),
        (Action.RESTRICT_MEDIA, Level.INSUFFICIENT, None, False),
        (Action.DEFEDERATE, Level.WATCH, None, False),
        (Action.DEFEDERATE, Level.WATCH, 366, True),
        (Action.DEFEDERATE, Level.RECOMMEND, 367, False),
        (Action.NONE, Level.WATCH, 0, False),
    ],
)
def test_blocks_and_what_is_recommended_need_an_end(
    store: Store, action: Action, level: Level, days: int | None, fine: bool
) -> None:
    with store.writing() as connection:
        if fine:
            assert taken(connection, action, level=level, days=days).action is action
            return
        with pytest.raises(NotDecided) as told:
            taken(connection, action, level=level, days=days)
        assert told.value.field == "days"
        assert logged(connection) == []


@pytest.mark.parametrize("reason", ["", "  \n ", "\0", "x" * 2_001])
def test_a_decision_has_a_reason_of_some_length(store: Store, reason: str) -> None:
    with store.writing() as connection, pytest.raises(NotDecided) as told:
        taken(connection, reason=reason)
    assert told.value.field == "reason"
    with store.reading() as connection:
        assert decisions_of(connection, BAD) == []


def test_two_spellings_are_one_instance_and_what_is_none_is_refused(store: Store) -> None:
    with store.writing() as connection:
        taken(connection, domain="BÜCHER.example:443")
        assert decision_in_force(connection, "xn--bcher-kva.example", NOW) is not None
        with pytest.raises(NotADomain):
            taken(connection, domain="<script>")


def test_one_withdraws_once(store: Store) -> None:
    with store.writing() as connection:
        made = taken(connection)
        withdraw(connection, ADA, made.id, of=BAD, at=NOW + 1)
    with store.writing() as connection:
        for number, domain in ((made.id, BAD), (made.id + 7, BAD), (made.id, "other.example")):
            with pytest.raises(NotThere):
                withdraw(connection, ADA, number, of=domain, at=NOW + 2)
        due = taken(connection, days=1)
        withdraw(connection, ADA, due.id, of=BAD, at=NOW + 2 * DAY_MS)
        assert [what for _, what, _ in logged(connection)] == [
            "decided",
            "decision withdrawn",
            "decided",
            "decision let go",
        ]
        assert decisions_due(connection, NOW + 9 * DAY_MS) == []


@pytest.mark.parametrize(
    "write",
    [
        lambda connection: taken(connection),
        lambda connection: note(connection, ADA, BAD, "x", at=NOW),
        lambda connection: write_down_letter(connection, ADA, BAD, "mail", sent=DAY, at=NOW),
        lambda connection: write_down_cleanup(connection, ADA, BAD, day=DAY, at=NOW),
        lambda connection: give_address(connection, ADA, BAD, "abuse@bad.example", at=NOW),
    ],
)
def test_what_is_written_and_its_entry_in_the_log_are_both_there_or_neither(
    store: Store, write: Callable[[Connection], object]
) -> None:
    class Power(Exception):
        pass

    with pytest.raises(Power), store.writing() as connection:
        write(connection)
        raise Power
    with store.reading() as connection:
        assert logged(connection) == []
        assert not (decisions_of(connection, BAD) or notes_of(connection, BAD) or letters_of(connection, BAD))
        assert not (cleanups_of(connection, BAD) or addresses_of(connection, BAD))
    with store.writing() as connection:
        write(connection)
    with store.reading() as connection:
        assert [about for _, _, about in logged(connection)] == [BAD]


def test_a_note_is_kept_as_it_was_written(store: Store) -> None:
    text = "=1+1 <b>\N{RIGHT-TO-LEFT OVERRIDE}\nsecond line"
    with store.writing() as connection:
        note(connection, ADA, BAD, text, at=NOW)
        note(connection, ADA, BAD, "later", at=NOW + 1)
        with pytest.raises(NotDecided):
            note(connection, ADA, BAD, " ", at=NOW)
        note(connection, ADA, BAD, "half \ud800", at=NOW + 2)
    with store.reading() as connection:
        assert [each.text for each in notes_of(connection, BAD)] == ["half ?", "later", text]
        assert text not in str(logged(connection))


def test_a_letter_and_its_answer(store: Store) -> None:
    with store.writing() as connection:
        write_down_letter(connection, ADA, BAD, "Matrix, to @root", sent=DAY, at=NOW)
        (letter,) = letters_of(connection, BAD)
        assert (letter.sent, letter.answered, letter.way, letter.by) == (DAY, None, "Matrix, to @root", "ada")
        with pytest.raises(NotDecided, match="before"):
            write_down_answer(connection, ADA, BAD, letter.id, day=date(2026, 5, 26), at=NOW)
        for domain, number in (("other.example", letter.id), (BAD, letter.id + 1)):
            with pytest.raises(NotThere):
                write_down_answer(connection, ADA, domain, number, day=DAY, at=NOW)
        write_down_answer(connection, ADA, BAD, letter.id, day=DAY, at=NOW)
        assert letters_of(connection, BAD)[0].answered == DAY
        with pytest.raises(NotDecided, match="yet to come"):
            write_down_letter(connection, ADA, BAD, "x", sent=date(2026, 6, 20), at=NOW)
        with pytest.raises(NotDecided):
            write_down_letter(connection, ADA, BAD, "", sent=DAY, at=NOW)


def test_a_cleanup_is_written_down_once_and_can_be_taken_back(store: Store) -> None:
    with store.writing() as connection:
        write_down_cleanup(connection, ADA, BAD, day=DAY, at=NOW)
        with pytest.raises(NotDecided, match="already"):
            write_down_cleanup(connection, ADA, BAD, day=DAY, at=NOW)
        (found,) = cleanups_of(connection, BAD)
        take_back_cleanup(connection, ADA, BAD, found.id, at=NOW)
        assert cleanups_of(connection, BAD) == []
        with pytest.raises(NotThere):
            take_back_cleanup(connection, ADA, BAD, found.id, at=NOW)


def test_what_a_person_gave_stays_theirs_when_the_instance_names_it_too(store: Store) -> None:
    found = [
        Contact(ContactKind.MAIL, "abuse@bad.example", "nodeinfo"),
        Contact(ContactKind.PROFILE, "https://bad.example/u/root", "site API /api/v3/site"),
    ]
    with store.writing() as connection:
        give_address(connection, ADA, BAD, " abuse@bad.example ", at=NOW)
        assert keep_found(connection, ADA, BAD, found, at=NOW) == 1
        known = addresses_of(connection, BAD)
        assert [(each.value, each.source) for each in known] == [
            ("abuse@bad.example", "given by ada"),
            ("https://bad.example/u/root", "site API /api/v3/site"),
        ]
        take_away_address(connection, ADA, BAD, "abuse@bad.example", at=NOW)
        assert [each.kind for each in addresses_of(connection, BAD)] == [ContactKind.PROFILE]
        with pytest.raises(NotThere):
            take_away_address(connection, ADA, BAD, "abuse@bad.example", at=NOW)


@pytest.mark.parametrize(
    "text", ["", "abuse", "http://bad.example/u/root", "a@b.example\r\nBcc: x@y.example", "javascript:x"]
)
def test_what_is_no_address_is_refused(store: Store, text: str) -> None:
    with store.writing() as connection, pytest.raises(NotDecided) as told:
        give_address(connection, ADA, BAD, text, at=NOW)
    assert told.value.field == "address"


def test_an_instance_cannot_fill_the_table_with_addresses(store: Store) -> None:
    many = [Contact(ContactKind.MAIL, f"a{number}@bad.example", "nodeinfo") for number in range(500)]
    with store.writing() as connection:
        assert keep_found(connection, ADA, BAD, many, at=NOW) == ADDRESSES_MOST
        with pytest.raises(NotDecided, match="enough"):
            give_address(connection, ADA, BAD, "b@bad.example", at=NOW)


def test_what_is_recommended_waits_until_somebody_decides() -> None:
    from tests.unit.federation_audit.deciding.assessed import of_level

    known = [of_level("b.example", 2), of_level("a.example", 2), of_level("c.example", 3), of_level("d.example", 1)]
    assert [each.instance for each in waiting(known, set())] == ["c.example", "a.example", "b.example"]
    assert [each.instance for each in waiting(known, {"c.example"})] == ["a.example", "b.example"]
