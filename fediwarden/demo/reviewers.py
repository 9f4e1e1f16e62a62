"""The demo's people: accounts for the pages, and what two reviewers say of what was flagged."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from federation_audit.accounts.actions import Actor
from federation_audit.accounts.passwords import Passwords
from federation_audit.accounts.roles import Role
from federation_audit.accounts.users import Users
from federation_audit.reviewing.giving import Part, give
from federation_audit.reviewing.outcomes import Opinion
from federation_audit.store.engine import Store
from federation_audit.store.tables import FLAGS, MEDIA, TEXTS
from fediwarden.demo.home import ADMIN, REVIEWERS
from fediwarden.demo.world import Post, is_waiting
from schemas.clock import now_ms

DEMO: Final = Actor("command line (demo)")
_UNSURE_EVERY: Final = 6
_WAITING_EVERY: Final = 3


@dataclass(frozen=True, slots=True)
class Flagged:
    """An image that is flagged now, by the ids that the store has for it and for what looks like it."""

    number: int
    cluster: int
    tenant: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Reviewing:
    """How many images were confirmed (twice), dismissed, left with doubts, and left alone."""

    confirmed: int
    dismissed: int
    unsure: int
    waiting: int


def add_accounts(store: Store, passwords: Mapping[str, str]) -> None:
    """Make the accounts, with these passwords; those that are there stay."""
    users = Users(store, Passwords())
    known = {user.name for user in users.all()}
    for name in (ADMIN, *REVIEWERS):
        if name not in known:
            role = Role.ADMIN if name == ADMIN else Role.REVIEWER
            users.add(name, role, passwords[name], by=DEMO, must_change=False)


def read_flagged(store: Store) -> list[Flagged]:
    """Everything that is flagged now, in the order of hashes."""
    query = (
        select(MEDIA.c.id, FLAGS.c.cluster_id, TEXTS.c.text, MEDIA.c.sha256)
        .join(FLAGS, FLAGS.c.media_id == MEDIA.c.id)
        .join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
        .where(FLAGS.c.now == 1)
        .order_by(MEDIA.c.sha256)
    )
    with store.reading() as connection:
        return [
            Flagged(number, cluster, tenant, bytes(sha)) for number, cluster, tenant, sha in connection.execute(query)
        ]


def review(store: Store, posts: Mapping[bytes, Post]) -> Reviewing:
    """Let the two reviewers work: stars are confirmed, mistakes dismissed, some of both left for others to try.

    `posts` by sha256: what the images really are. Repeating it changes nothing.
    """
    first, second = REVIEWERS
    counts = dict.fromkeys(("confirmed", "dismissed", "unsure", "waiting"), 0)
    stars: dict[int, list[Flagged]] = defaultdict(list)
    mistakes = []
    for each in read_flagged(store):
        post = posts.get(each.sha256)
        if post is None or is_waiting(post):
            counts["waiting"] += 1
        elif post.motif.forbidden:
            stars[each.cluster].append(each)
        else:
            mistakes.append(each)
    with store.writing() as connection:
        for cluster in stars.values():
            for name in (first, second):
                give(connection, Actor(name), [_part(cluster)], Opinion.CONFIRM, note="a star", at=now_ms())
            counts["confirmed"] += len(cluster)
        for place, each in enumerate(mistakes):
            if place % _UNSURE_EVERY == _UNSURE_EVERY - 1:
                give(connection, Actor(second), [_part([each])], Opinion.UNSURE, note="", at=now_ms())
                counts["unsure"] += 1
            elif place % _WAITING_EVERY == _WAITING_EVERY - 1:
                counts["waiting"] += 1
            else:
                who = Actor(REVIEWERS[place % 2])
                give(connection, who, [_part([each])], Opinion.DISMISS, note="no star in it", at=now_ms())
                counts["dismissed"] += 1
    return Reviewing(**counts)


def _part(images: list[Flagged]) -> Part:
    return Part(
        tenant=images[0].tenant,
        name=min(each.sha256 for each in images),
        media=tuple(each.sha256 for each in images),
        ids=tuple(each.number for each in images),
    )
