"""A store that was filled at once, against one that the recorder wrote of the same messages."""

from pathlib import Path

from sqlalchemy import func, select

from bench.audit_fill import fill, multiply
from bench.audit_messages import invent
from federation_audit.store.dump import digest
from federation_audit.store.facts import Role
from federation_audit.store.migrating import open_store
from federation_audit.store.recorder import Recorder
from federation_audit.store.standings import NOW
from federation_audit.store.tables import FLAGS, JOINS, JUDGEMENTS, LINKS, MEDIA, PERIODS, SIGHTINGS, TALLIES
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


def test_copies_are_other_images_and_what_is_derived_fits_them(tmp_path: Path) -> None:
    now, copies = now_ms(), 3
    seed, path = tmp_path / "seed.sqlite", tmp_path / "many.sqlite"
    with open_store(f"sqlite:///{seed}") as small:
        fill(small, seed, IMAGES, 30, now=now)
    with open_store(f"sqlite:///{path}") as many:
        multiply(many, path, seed, copies, now=now)
        with many.reading() as connection:
            media = connection.execute(select(func.count()).select_from(MEDIA)).scalar_one()
            assert media == copies * IMAGES
            author = (TALLIES.c.role == int(Role.AUTHOR), TALLIES.c.stratum_id == NOW)
            for column in (
                select(func.sum(TALLIES.c.exposed)).where(*author),
                select(func.sum(PERIODS.c.exposed)),
                select(func.count(JUDGEMENTS.c.media_id)).join(MEDIA, MEDIA.c.id == JUDGEMENTS.c.media_id),
                select(func.count(JOINS.c.media_id)).join(LINKS, LINKS.c.subject_id == JOINS.c.media_id),
            ):
                assert connection.execute(column).scalar_one() == media
            seen = (
                select(func.count())
                .select_from(SIGHTINGS)
                .join(JUDGEMENTS, (JUDGEMENTS.c.media_id == SIGHTINGS.c.subject_id))
            )
            assert connection.execute(seen.where(SIGHTINGS.c.role == int(Role.AUTHOR))).scalar_one() == media
            before = connection.execute(select(func.sum(PERIODS.c.flagged))).scalar_one()
            assert before == connection.execute(select(func.count()).select_from(FLAGS)).scalar_one() > 0
        Recorder(many, holder="test", retention_days=395).record(_messages(now, first=IMAGES), {})
        with many.reading() as connection:
            assert connection.execute(select(func.sum(PERIODS.c.exposed))).scalar_one() == media + IMAGES
