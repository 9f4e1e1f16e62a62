"""How fast the pages' assessment is made from the audit store, and what a look at one instance's history costs.

python -m bench.audit_pages [--events 60000] [--instances 20000] [--weeks 40] [--flagged 100000] [--folder DIR]

First the messages of `bench.audit` go through the recorder, which gives few rows. Then what ten million verdicts leave
is written straight into the tables that an assessment reads: exposure in each of `--weeks` weeks and two strata of each
of `--instances` instances, sizes by a power law, and `--flagged` flagged media with a judgement and evidence each, a
twentieth of them confirmed by two reviewers. Seconds are wall clock, CPU seconds beside them.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
from sqlalchemy import Connection, func, insert, select

from bench.audit import _peak_mb
from bench.audit_messages import invent
from federation_audit.assessing.assessor import Assessor
from federation_audit.assessing.case import build_case
from federation_audit.assessing.history import read_history
from federation_audit.assessing.reading import read_known
from federation_audit.reviewing.tables import REVIEWS
from federation_audit.store.engine import Store
from federation_audit.store.identities import TextKind
from federation_audit.store.migrating import migrate
from federation_audit.store.periods import as_day, first_day
from federation_audit.store.recorder import Recorder
from federation_audit.store.rows import put
from federation_audit.store.tables import EVIDENCE, FLAGS, JUDGEMENTS, MEDIA, ORIGINS, PERIODS, STRATA, TEXTS
from schemas.broker import Received
from schemas.topics import DAY_MS

Answer = TypeVar("Answer")
_BATCH = 5_000
_PER_INSTANCE_WEEK = 12.0  # images on average: 20,000 instances for 40 weeks are 9.6 million


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=60_000)
    arguments.add_argument("--instances", type=int, default=20_000)
    arguments.add_argument("--weeks", type=int, default=40)
    arguments.add_argument("--flagged", type=int, default=100_000)
    arguments.add_argument("--folder", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "audit.sqlite"
        with Store(f"sqlite:///{path}") as store:
            migrate(store)
            _record(store, options.events, options.instances)
            with store.writing() as connection:
                _enlarge(connection, options.instances, options.weeks, options.flagged)
            _measure(store)


def _record(store: Store, events: int, instances: int) -> None:
    recorder = Recorder(store, holder="bench", retention_days=395)
    batch: list[Received] = []
    for topic, message in invent(events, instances):
        batch.append(Received(topic, 0, 0, 0, b"", message, None, 1))
        if len(batch) == _BATCH:
            recorder.record(batch, {})
            batch = []
    recorder.record(batch, {})
    recorder.release()


def _enlarge(connection: Connection, instances: int, weeks: int, flagged: int) -> None:
    chance = np.random.default_rng(1)
    most = connection.execute(select(func.max(TEXTS.c.id))).scalar() or 0
    names = range(most + 1, most + 1 + instances)
    kind = int(TextKind.INSTANCE)
    connection.execute(
        insert(TEXTS), [{"id": number, "kind": kind, "text": f"large{number}.example"} for number in names]
    )
    strata = list(connection.scalars(select(STRATA.c.id)))
    today = as_day(datetime.now(UTC).date())
    firsts = sorted({first_day(today - 7 * back) for back in range(weeks)})
    sizes = chance.pareto(1.2, instances) + 0.02
    sizes *= _PER_INSTANCE_WEEK / sizes.mean()
    for stratum in strata:
        for first in firsts:
            media = chance.poisson(sizes / len(strata))
            wrong = chance.binomial(media, 0.01)
            rows = [
                {
                    "instance_id": names[place],
                    "stratum_id": stratum,
                    "first_day": first,
                    "exposed": int(media[place]),
                    "flagged": int(wrong[place]),
                }
                for place in np.flatnonzero(media)
            ]
            connection.execute(insert(PERIODS), rows)
    _flag(connection, chance, np.array(names), sizes / sizes.sum(), strata, firsts, flagged)


def _flag(
    connection: Connection,
    chance: np.random.Generator,
    names: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    shares: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    strata: list[int],
    firsts: list[int],
    flagged: int,
) -> None:
    tenant_id = connection.execute(select(MEDIA.c.tenant_id).limit(1)).scalar_one()
    tenant = connection.execute(select(TEXTS.c.text).where(TEXTS.c.id == tenant_id)).scalar_one()
    media_id = connection.execute(select(func.max(MEDIA.c.id))).scalar() or 0
    where = chance.choice(names, size=flagged, p=shares)
    days = chance.choice(np.array(firsts), size=flagged)
    origin = connection.execute(select(ORIGINS).limit(1)).mappings().one()
    for first in range(0, flagged, _BATCH):
        rows = range(first, min(flagged, first + _BATCH))
        ids = {row: media_id + 1 + row for row in rows}
        sha256s = {row: hashlib.sha256(b"large %d" % row).digest() for row in rows}
        at = {row: int(days[row]) * DAY_MS for row in rows}
        connection.execute(
            insert(MEDIA), [{"id": ids[row], "tenant_id": tenant_id, "sha256": sha256s[row]} for row in rows]
        )
        connection.execute(
            insert(FLAGS),
            [
                {
                    "media_id": ids[row],
                    "cluster_id": ids[row] + 10_000_000,
                    "flagged_at": at[row],
                    "scan_id": "s",
                    "detail": '{"rules":[],"scores":{}}',
                    "now": 1,
                }
                for row in rows
            ],
        )
        judged = {"scan_id": "s", "decision": 2, "rules_id": 0}
        connection.execute(
            insert(JUDGEMENTS),
            [
                {"media_id": ids[row], "stratum_id": strata[row % len(strata)], "judged_at": at[row]} | judged
                for row in rows
            ],
        )
        actors = {row: 1 + row % 1_000 for row in rows}
        connection.execute(
            insert(EVIDENCE),
            [
                {
                    "instance_id": int(where[row]),
                    "media_id": ids[row],
                    "actor_id": actors[row],
                    "day": int(days[row]),
                }
                for row in rows
            ],
        )
        confirmed = [row for row in rows if row % 20 == 0]
        own = {"author_confidence": 3, "moment_at": None}
        connection.execute(
            insert(ORIGINS),
            [
                dict(origin)
                | own
                | {
                    "id": sha256s[row],
                    "subject_id": ids[row],
                    "author_instance_id": int(where[row]),
                    "actor_id": actors[row],
                    "observed_at": at[row],
                }
                for row in confirmed
            ],
        )
        review = {"tenant": tenant, "opinion": "confirm", "at": 0, "note": ""}
        connection.execute(
            insert(REVIEWS),
            [review | {"sha256": sha256s[row], "reviewer": who} for row in confirmed for who in ("alice", "bob")],
        )
        put(  # an instance counts no more incidents than images in a week
            connection,
            PERIODS,
            [
                {
                    "instance_id": int(where[row]),
                    "stratum_id": strata[row % len(strata)],
                    "first_day": int(days[row]),
                    "exposed": 5_000,
                    "flagged": 50,
                }
                for row in confirmed
            ],
        )


def _measure(store: Store) -> None:
    with store.reading() as connection:
        counts = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in _BIG
        }
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    before = _peak_mb()
    with store.reading() as connection:
        _timed("reading", lambda: read_known(connection, verified_lists=(), local_domains=frozenset()), times=2)
    assessor = Assessor(store)
    assessed = _timed("reading and assessing", assessor.refresh, times=2)
    print(
        f"{len(assessed.assessment)} instances assessed; {before:.0f} MB resident before, {_peak_mb():.0f} MB at most"
    )
    domain = max(assessed.assessment, key=lambda each: each.triage.media).instance
    at = assessed.assessment.at
    looks = _timed("history of 26 weeks", lambda: read_history(assessed, domain, at - timedelta(weeks=26)), times=5)
    with store.reading() as connection:
        case = _timed(
            "a case of 90 days",
            lambda: build_case(connection, assessed, domain, since=at - timedelta(days=90), until=at),
            times=3,
        )
    print(f"{len(looks)} looks, {len(case.incidents)} incidents")


_BIG = (TEXTS, MEDIA, PERIODS, FLAGS, EVIDENCE, REVIEWS)


def _timed(what: str, ask: Callable[[], Answer], *, times: int) -> Answer:
    taken = []
    for _ in range(times):
        began, began_cpu = time.perf_counter(), time.process_time()
        answer = ask()
        taken.append((time.perf_counter() - began, time.process_time() - began_cpu))
    wall, cpu = min(taken)
    print(f"{what:22} {wall * 1000:9.1f} ms ({cpu * 1000:.1f} of CPU)", flush=True)
    return answer


if __name__ == "__main__":
    main()
