"""The store's content as text, without what differs between two stores of the same content: ids, order, offsets.

Two stores that have read the same messages, in whatever order and however often, give the same lines; their `digest`
says so in one line.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Table, select

from federation_audit.store.facts import DECISIONS, METHODS, PLACES, Role
from federation_audit.store.identities import NameKind
from federation_audit.store.queries import name_clusters
from federation_audit.store.tables import (
    ACTORS,
    DAYS,
    EVIDENCE,
    FLAGS,
    FORGOTTEN,
    JOINS,
    JUDGEMENTS,
    LINKS,
    LOOKS,
    MARKS,
    MEDIA,
    NAMES,
    ORIGINS,
    PERIODS,
    RESCAN_COUNTS,
    RESCAN_FLIPS,
    RESCAN_IMAGES,
    RESCANS,
    SIGHTINGS,
    STRATA,
    TALLIES,
    TEXTS,
)

_BITS = 256


def dump_lines(connection: Connection) -> Iterator[str]:
    """One line of JSON for each row, in no particular order."""
    names = _Names(connection)
    for table, columns in _CONTENT.items():
        for row in connection.execution_options(yield_per=1_000).execute(select(table)):
            values = {name: names.of(kind, getattr(row, name)) for name, kind in columns.items()}
            yield json.dumps([table.name, values], sort_keys=True, ensure_ascii=True)


def digest(connection: Connection) -> str:
    """64 hexadecimal digits, the same for the same content: the sum of the lines' SHA-256."""
    total = 0
    for line in dump_lines(connection):
        total += int.from_bytes(hashlib.sha256(line.encode()).digest(), "big")
    return f"{total % (1 << _BITS):0{_BITS // 4}x}"


class _Names:
    """What ids stand for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        clusters = name_clusters(connection, set(connection.scalars(select(FLAGS.c.cluster_id).distinct())))
        self._texts = {0: ""} | {row.id: row.text for row in connection.execute(select(TEXTS))}
        self._tables: dict[str, dict[int, Any]] = {
            "actor": {0: ""}
            | {row.id: [row.key_id, row.pseudonym.hex()] for row in connection.execute(select(ACTORS))},
            "stratum": {0: "now"} | {row.id: list(row)[1:] for row in connection.execute(select(STRATA))},
            "cluster": {number: sha256.hex() for number, sha256 in clusters.items()},
        }

    def of(self, kind: str, value: Any) -> Any:
        match kind:
            case "text":
                return self._texts[value]
            case "actor" | "stratum" | "cluster":
                return self._tables[kind][value]
            case "bytes":
                return bytes(value).hex()
            case "subject":
                return self._subject(value)
            case "role":
                return Role(value).name
            case "decision":
                return DECISIONS[value]
            case "place":
                return PLACES[value]
            case "method":
                return METHODS[value]
            case _:
                return value

    def _subject(self, number: int) -> list[str]:
        medium = self._connection.execute(select(MEDIA).where(MEDIA.c.id == number)).first()
        if medium is not None:
            return [self._texts[medium.tenant_id], "sha256", medium.sha256.hex()]
        name = self._connection.execute(select(NAMES).where(NAMES.c.id == number)).one()
        return [self._texts[name.tenant_id], NameKind(name.kind).name, name.text]


_CONTENT: dict[Table, dict[str, str]] = {
    JUDGEMENTS: {
        "media_id": "subject",
        "stratum_id": "stratum",
        "judged_at": "",
        "scan_id": "",
        "decision": "decision",
        "rules_id": "text",
    },
    MARKS: {"media_id": "subject", "mark_id": "text", "at": ""},
    FLAGS: {
        "media_id": "subject",
        "cluster_id": "cluster",
        "flagged_at": "",
        "scan_id": "",
        "detail": "",
        "now": "",
    },
    LOOKS: {"media_id": "subject", "pdq": "bytes", "at": ""},
    LINKS: {"subject_id": "subject", "name_id": "subject", "at": ""},
    JOINS: {"media_id": "subject", "name_id": "subject"},
    ORIGINS: {
        "id": "bytes",
        "subject_id": "subject",
        "place": "place",
        "method": "method",
        "host_id": "text",
        "host_confidence": "",
        "author_instance_id": "text",
        "author_confidence": "",
        "actor_id": "actor",
        "community_id": "text",
        "community_instance_id": "text",
        "community_confidence": "",
        "moment_at": "",
        "moment_confidence": "",
        "post_url": "",
        "observer": "",
        "observed_at": "",
        "tie": "",
    },
    SIGHTINGS: {
        "subject_id": "subject",
        "role": "role",
        "instance_id": "text",
        "actor_id": "actor",
        "day": "",
        "sure": "",
        "origins": "",
    },
    EVIDENCE: {"instance_id": "text", "media_id": "subject", "actor_id": "actor", "day": ""},
    TALLIES: {
        "role": "role",
        "instance_id": "text",
        "stratum_id": "stratum",
        "exposed": "",
        "flagged": "",
        "incidents": "",
    },
    PERIODS: {"instance_id": "text", "stratum_id": "stratum", "first_day": "", "exposed": "", "flagged": ""},
    DAYS: {"day": "", "tenant_id": "text", "measure_id": "text", "media": ""},
    FORGOTTEN: {"key_id": "", "pseudonym": "bytes", "forgotten_at": ""},
    RESCANS: {"rescan": "", "ordered_at": "", "state": "", "job": ""},
    RESCAN_IMAGES: {"rescan_id": "text", "image": "", "at": "", "outcome_id": "text"},
    RESCAN_COUNTS: {"rescan_id": "text", "outcome_id": "text", "images": ""},
    RESCAN_FLIPS: {
        "rescan_id": "text",
        "image": "",
        "tenant_id": "text",
        "sha256": "bytes",
        "scan_id": "",
        "judged_at": "",
        "before": "",
        "after": "",
        "outcome_id": "text",
    },
}
