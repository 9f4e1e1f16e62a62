"""What is kept of what is flagged: never older than the store."""

from pathlib import Path

from federation_audit.reviewing.flagged import Flagged, read_flagged
from federation_audit.store.engine import Store
from schemas.messages import Decision, Message
from tests.stores import forgotten, judged, open_store, received, seen, sqlite_url, write

REJECT = Decision.REJECT


def _read(store: Store) -> Flagged:
    with store.reading() as connection:
        return read_flagged(connection)


def test_it_is_read_again_when_it_changed_and_only_then(tmp_path: Path) -> None:
    with open_store(sqlite_url(tmp_path)) as store:
        recorder = write(store)

        def counts(*messages: Message) -> tuple[int, int, bool]:
            """Flagged, sent, and whether they were read anew, once these are recorded."""
            before = _read(store)
            recorder.record(received(list(messages)), {})
            after = _read(store)
            assert after is _read(store)
            return len(after.media), len(after.sent), after is not before

        assert counts(judged(1, decision=Decision.ACCEPT), seen(1, "a.example")) == (0, 0, False)
        assert counts(judged(2, decision=REJECT)) == (1, 0, True)
        assert counts(seen(2, "a.example", actor="ann")) == (1, 1, True)
        assert counts(judged(3, decision=Decision.ACCEPT)) == (1, 1, False)
        assert counts(forgotten("ann")) == (1, 0, True)
        recorder.clear()
        assert len(_read(store).media) == 0
