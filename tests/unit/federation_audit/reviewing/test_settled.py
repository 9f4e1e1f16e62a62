"""What is kept of what is settled: never older than the reviews or the store."""

from collections.abc import Sequence
from pathlib import Path

from federation_audit.accounts.actions import Actor
from federation_audit.reviewing.answering import answer_media
from federation_audit.reviewing.giving import undo
from federation_audit.reviewing.outcomes import Opinion
from federation_audit.reviewing.settings import ReviewSettings
from federation_audit.reviewing.settled import Settled, read_settled
from federation_audit.store.engine import Store
from schemas.messages import Decision
from tests.stores import NOON, judged, open_store, received, seen, sha, sqlite_url, write

ALICE, BOB = Actor("alice"), Actor("bob")


def _read(store: Store) -> Sequence[Settled]:
    with store.reading() as connection:
        return read_settled(connection)


def _answer(store: Store, by: Actor, opinion: Opinion, at: int) -> str:
    with store.writing() as connection:
        answer = answer_media(connection, by, "default", [sha(1)], opinion, note="", at=at, settings=ReviewSettings())
    assert answer is not None
    return answer


def test_it_is_read_again_when_it_changed_and_only_then(tmp_path: Path) -> None:
    with open_store(sqlite_url(tmp_path)) as store:
        recorder = write(store, [judged(1, decision=Decision.REJECT)])
        assert _read(store) == ()
        _answer(store, ALICE, Opinion.CONFIRM, NOON)
        assert _read(store) == ()
        last = _answer(store, BOB, Opinion.CONFIRM, NOON + 1)
        (settled,) = _read(store)
        assert (settled.outcome, settled.authors) == ("confirmed", ())
        recorder.record(received([judged(2, decision=Decision.ACCEPT)]), {})
        assert _read(store)[0] is settled
        recorder.record(received([seen(1, "a.example")]), {})
        assert _read(store)[0].authors == ("a.example",)
        with store.writing() as connection:
            undo(connection, BOB, last, at=NOON + 2)
        assert _read(store) == ()
        _answer(store, BOB, Opinion.DISMISS, NOON + 3)
        _answer(store, ALICE, Opinion.DISMISS, NOON + 4)
        assert [each.outcome for each in _read(store)] == ["dismissed"]
