"""A reviewer's answer to rows of the queue, or to single images: checked against what is there now, then written."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from federation_audit.accounts.actions import Actor
from federation_audit.reviewing.errors import CapReached, ClusterChanged
from federation_audit.reviewing.giving import Part, give, take_turn
from federation_audit.reviewing.outcomes import Opinion
from federation_audit.reviewing.overriding import Wish
from federation_audit.reviewing.pace import read_pace
from federation_audit.reviewing.queue import read_one
from federation_audit.reviewing.settings import ReviewSettings
from federation_audit.store.identities import TextKind
from federation_audit.store.rows import chunks
from federation_audit.store.tables import FLAGS, MEDIA, TEXTS


@dataclass(frozen=True, slots=True)
class Asked:
    """A row that is answered: `seen` names what of it was shown (`queue.Waiting.seen`)."""

    tenant: str
    name: bytes
    seen: str


def answer_rows(
    connection: Connection,
    by: Actor,
    asked: Sequence[Asked],
    opinion: Opinion,
    *,
    note: str,
    at: int,
    settings: ReviewSettings,
    verified_lists: Collection[str] = (),
    wish: Wish | None = None,
) -> str | None:
    """Answer rows of the queue, all or none of them; the answer's id, None where nothing of them waits any more.

    Raises `CapReached`; `ClusterChanged` where there is more, or less, than what was shown.
    """
    take_turn(connection)
    parts = []
    for each in {(one.tenant, one.name): one for one in asked}.values():
        row = read_one(connection, by.name, each.tenant, each.name, verified_lists=verified_lists)
        if row is None:
            continue  # settled, or answered by a second click
        if row.seen != each.seen:
            raise ClusterChanged(
                f"Nothing was changed: there are {len(row.media)} images in this row now, not those that were shown."
                " Look at it again, and answer again."
            )
        parts.append(
            Part(row.tenant, row.name, tuple(sha for _, sha in row.media), tuple(number for number, _ in row.media))
        )
    if not parts:
        return None
    _keep_the_cap(connection, by, len(parts), at, settings)
    return give(connection, by, parts, opinion, note=note, at=at, wish=wish)


def answer_media(
    connection: Connection,
    by: Actor,
    tenant: str,
    hashes: Collection[bytes],
    opinion: Opinion,
    *,
    note: str,
    at: int,
    settings: ReviewSettings,
    wish: Wish | None = None,
) -> str | None:
    """Answer single flagged images, settled ones too; the answer's id, None where none of them is flagged.

    Raises `CapReached`.
    """
    take_turn(connection)
    found: list[tuple[bytes, int]] = []
    for chunk in chunks(set(hashes)):
        query = (
            select(MEDIA.c.sha256, MEDIA.c.id)
            .join(FLAGS, FLAGS.c.media_id == MEDIA.c.id)
            .join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
            .where(MEDIA.c.sha256.in_(chunk), TEXTS.c.text == tenant, TEXTS.c.kind == int(TextKind.TENANT))
        )
        found += [(bytes(sha256), number) for sha256, number in connection.execute(query)]
    if not found:
        return None
    _keep_the_cap(connection, by, 1, at, settings)
    found.sort()
    part = Part(tenant, found[0][0], tuple(sha256 for sha256, _ in found), tuple(number for _, number in found))
    return give(connection, by, [part], opinion, note=note, at=at, wish=wish)


def _keep_the_cap(connection: Connection, by: Actor, rows: int, at: int, settings: ReviewSettings) -> None:
    left = read_pace(connection, by.name, settings, at).left
    if rows > left:
        raise CapReached(
            f"Nothing was changed: you have {left} of {settings.daily_cap} answers left today, and these are {rows}."
            + (" Select fewer." if left else " That is enough for today; it goes on at midnight UTC.")
        )
