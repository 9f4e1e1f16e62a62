"""A store that was filled at once, against one that the recorder wrote of the same messages."""

from pathlib import Path

from bench.audit_fill import fill
from bench.audit_messages import invent
from federation_audit.store.dump import digest
from federation_audit.store.migrating import open_store
from federation_audit.store.recorder import Recorder
from schemas.broker import Received
from schemas.clock import now_ms

IMAGES = 150


def _messages(now: int, first: int = 0) -> list[Received]:
    return [
        Received(topic, 0, 0, 0, b"", message, None, 1)
        for topic, message in invent(3 * IMAGES, 30, first=first, now=now)
    ]


def test_what_is_filled_at_once_is_what_the_recorder_writes_and_goes_on_from(tmp_path: Path) -> None:
    now = now_ms()
    written, filled = (open_store(f"sqlite:///{tmp_path / name}") for name in ("written.sqlite", "filled.sqlite"))
    with written, filled:
        Recorder(written, holder="test", retention_days=395).record(_messages(now), {})
        fill(filled, tmp_path / "filled.sqlite", IMAGES, 30, now=now)
        digests = []
        for further in ([], _messages(now, first=IMAGES)):
            for store in (written, filled):
                Recorder(store, holder="test", retention_days=395).record(further, {})
                with store.reading() as connection:
                    digests.append(digest(connection))
        assert digests[0] == digests[1] != digests[2] == digests[3]
