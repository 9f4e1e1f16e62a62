"""What was settled, and by whom."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from federation_audit.reviewing.outcomes import Outcome, Review, read_reviewed
from federation_audit.store.rows import among, chunks
from federation_audit.store.tables import EVIDENCE, FLAGS, MEDIA, TEXTS

_SETTLED = (Outcome.CONFIRMED, Outcome.DISMISSED)


@dataclass(frozen=True, slots=True)
class Settled:
    """Images of one tenant that look alike and came to one outcome.

    `reviews` has each reviewer's latest, the first first; `authors` the instances that they are attributed to.
    `name` is the smallest sha256; `images` how many.
    """

    tenant: str
    name: bytes
    outcome: Outcome
    images: int
    at: int
    reviews: tuple[Review, ...]
    authors: tuple[str, ...]


def read_settled(connection: Connection) -> list[Settled]:
    """Everything that is settled, the latest first. What the store no longer has stands for itself."""
    settled = {key: each for key, each in read_reviewed(connection).items() if each.outcome in _SETTLED}
    clusters = _clusters(connection, settled)
    authors = _authors(connection, [number for number, _ in clusters.values()])
    groups: dict[tuple[str, object, Outcome], list[tuple[str, bytes]]] = {}
    for key, each in settled.items():
        place: object = clusters[key][1] if key in clusters else key[1]
        groups.setdefault((key[0], place, each.outcome), []).append(key)
    found = []
    for (tenant, _, outcome), keys in groups.items():
        latest: dict[str, Review] = {}
        for review in sorted((each for key in keys for each in settled[key].reviews), key=lambda each: each.at):
            latest[review.reviewer] = review
        domains = {domain for key in keys if key in clusters for domain in authors.get(clusters[key][0], ())}
        found.append(
            Settled(
                tenant,
                min(sha256 for _, sha256 in keys),
                outcome,
                len(keys),
                max(settled[key].settled_at or 0 for key in keys),
                tuple(latest.values()),
                tuple(sorted(domains)),
            )
        )
    return sorted(found, key=lambda each: (-each.at, each.tenant, each.name))


def _clusters(connection: Connection, media: Collection[tuple[str, bytes]]) -> dict[tuple[str, bytes], tuple[int, int]]:
    """Id and cluster of those of `media` that are flagged in the store."""
    found: dict[tuple[str, bytes], tuple[int, int]] = {}
    for chunk in chunks({sha256 for _, sha256 in media}):
        query = (
            select(MEDIA.c.id, MEDIA.c.sha256, TEXTS.c.text, FLAGS.c.cluster_id)
            .join(FLAGS, FLAGS.c.media_id == MEDIA.c.id)
            .join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
            .where(MEDIA.c.sha256.in_(chunk))
        )
        for number, sha256, tenant, cluster in connection.execute(query):
            found[tenant, bytes(sha256)] = (number, cluster)
    return found


def _authors(connection: Connection, media: Collection[int]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for chunk in chunks(media):
        query = (
            select(EVIDENCE.c.media_id, TEXTS.c.text)
            .join(TEXTS, TEXTS.c.id == EVIDENCE.c.instance_id)
            .where(among(connection, EVIDENCE.c.media_id, chunk))
        )
        for number, domain in connection.execute(query):
            found.setdefault(number, set()).add(domain)
    return found
