"""Judgements, marks, and what is kept of flagged media: the newest of each, written over what is there."""

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, select

from federation_audit.store.clusters import Clusters
from federation_audit.store.facts import Facts, Flagging, Judgement
from federation_audit.store.identities import Identities, MediaKey, TextKind
from federation_audit.store.rows import add, change, put, rows_among
from federation_audit.store.tables import FLAGS, JUDGEMENTS, LOOKS, MARKS, TEXTS

Look = tuple[int, bytes]


def write_judgements(
    connection: Connection, identities: Identities, facts: Facts, media: Mapping[MediaKey, int], new: Collection[int]
) -> None:
    """Write those of `facts` that are newer than what is there. `new` are ids that have nothing yet."""
    strata = identities.strata(connection, {stratum for _, stratum in facts.judgements})
    rules = identities.texts(connection, TextKind.RULES, {each.rules for each in facts.judgements.values()})
    found = {(media[medium], strata[stratum]): each for (medium, stratum), each in facts.judgements.items()}
    known: dict[tuple[int, int], Judgement] = {}
    query = select(JUDGEMENTS, TEXTS.c.text).outerjoin(TEXTS, TEXTS.c.id == JUDGEMENTS.c.rules_id)
    old = {medium for medium, _ in found if medium not in new}
    for row in rows_among(connection, query, JUDGEMENTS.c.media_id, old):
        judgement = Judgement(row.judged_at, row.scan_id, row.decision, row.text or "")
        known[row.media_id, row.stratum_id] = judgement
    rows = [
        {
            "media_id": medium,
            "stratum_id": stratum,
            "judged_at": each.judged_at,
            "scan_id": each.scan_id,
            "decision": each.decision,
            "rules_id": rules[each.rules],
        }
        for (medium, stratum), each in found.items()
        if (medium, stratum) not in known or known[medium, stratum] < each
    ]
    put(connection, JUDGEMENTS, rows)


def write_marks(
    connection: Connection, identities: Identities, facts: Facts, media: Mapping[MediaKey, int], new: Collection[int]
) -> None:
    """Write the latest time of each mark. `new` are ids that have none yet."""
    marks = identities.texts(connection, TextKind.MARK, {mark for _, mark in facts.marks})
    found = {(media[medium], marks[mark]): at for (medium, mark), at in facts.marks.items()}
    known: dict[tuple[int, int], int] = {}
    query = select(MARKS.c.media_id, MARKS.c.mark_id, MARKS.c.at)
    old = {medium for medium, _ in found if medium not in new}
    for medium, mark, at in rows_among(connection, query, MARKS.c.media_id, old):
        known[medium, mark] = at
    rows = [
        {"media_id": medium, "mark_id": mark, "at": at}
        for (medium, mark), at in found.items()
        if known.get((medium, mark), -1) < at
    ]
    put(connection, MARKS, rows)


def write_flags(
    connection: Connection,
    identities: Identities,
    facts: Facts,
    media: Mapping[MediaKey, int],
    clusters: Clusters,
) -> set[int]:
    """Write flagged media and their hashes, and find their clusters; the media that have changed clusters, which is to
    be written with `move`. What is new here is not flagged now before `write_now` says so."""
    found = {media[medium]: each for medium, each in facts.flaggings.items()}
    known: dict[int, Flagging] = {}
    query = select(FLAGS.c.media_id, FLAGS.c.flagged_at, FLAGS.c.scan_id, FLAGS.c.detail)
    for medium, *each in rows_among(connection, query, FLAGS.c.media_id, found):
        known[medium] = Flagging(*each)
    came = _new_looks(connection, {(media[medium], pdq): at for (medium, pdq), at in facts.looks.items()})
    names = {media[medium]: medium.sha256 for medium in facts.flaggings}
    moved = clusters.add({medium: names[medium] for medium in sorted(names)}, sorted(came))
    fresh = found.keys() - known.keys()
    tenants = identities.texts(connection, TextKind.TENANT, {key.tenant for key in facts.flaggings})
    whose = {media[key]: tenants[key.tenant] for key in facts.flaggings}
    add(
        connection,
        FLAGS,
        [
            _flag(medium, found[medium])
            | {"cluster_id": clusters.cluster_of(medium), "now": 0, "tenant_id": whose[medium]}
            for medium in sorted(fresh)
        ],
    )
    newer = [_flag(medium, each) for medium, each in found.items() if medium in known and known[medium] < each]
    change(connection, FLAGS, newer)
    return moved


def clusters_behind(connection: Connection, media: Collection[int]) -> dict[int, int]:
    """Those of `media` that are in `FLAGS`, and the cluster that is written there."""
    query = select(FLAGS.c.media_id, FLAGS.c.cluster_id)
    return dict(rows_among(connection, query, FLAGS.c.media_id, media))


def move(connection: Connection, media: Collection[int], clusters: Clusters) -> None:
    """Write the clusters of `media`."""
    rows = [{"media_id": medium, "cluster_id": clusters.cluster_of(medium)} for medium in sorted(media)]
    change(connection, FLAGS, rows)


def write_now(connection: Connection, flagged: Mapping[int, bool]) -> None:
    """Write whether media are flagged now, of those of `flagged` that ever were."""
    query = select(FLAGS.c.media_id, FLAGS.c.now)
    there = {row.media_id: row.now for row in rows_among(connection, query, FLAGS.c.media_id, flagged)}
    turned = [medium for medium, now in there.items() if bool(now) != flagged[medium]]
    change(connection, FLAGS, [{"media_id": medium, "now": int(flagged[medium])} for medium in turned])


def _flag(medium: int, each: Flagging) -> dict[str, int | str]:
    return {"media_id": medium, "flagged_at": each.at, "scan_id": each.scan_id, "detail": each.detail}


def _new_looks(connection: Connection, found: Mapping[Look, int]) -> set[Look]:
    """Write the latest times of hashes; those that were not there."""
    known: dict[Look, int] = {}
    query = select(LOOKS.c.media_id, LOOKS.c.pdq, LOOKS.c.at)
    for medium, pdq, at in rows_among(connection, query, LOOKS.c.media_id, {medium for medium, _ in found}):
        known[medium, pdq] = at
    later = [(look, at) for look, at in found.items() if known.get(look, -1) < at]
    put(connection, LOOKS, [{"media_id": medium, "pdq": pdq, "at": at} for (medium, pdq), at in later])
    return found.keys() - known.keys()
