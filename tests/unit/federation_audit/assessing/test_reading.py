"""What the statistics are told, against the same found from the messages in plain sets."""

import random
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from federation_audit.assessing.reading import Known, newest_period, read_known
from federation_audit.deciding.tables import LETTERS, REMEDIATIONS
from federation_audit.reviewing.outcomes import Opinion
from federation_audit.statistics.assessment import assess
from federation_audit.statistics.events import Contact, Evidence, Remediation
from federation_audit.statistics.exposures import ExposureTable
from federation_audit.store.engine import Store
from federation_audit.store.periods import as_day
from federation_audit.store.queries import read_instances, read_strata
from federation_audit.store.tables import FLAGS, MEDIA
from schemas.messages import Confidence, Decision, Message, Stage
from schemas.topics import DAY_MS
from tests.examples import thorough
from tests.fediverse import review
from tests.stores import NOON, forgotten, judged, open_store, pdq, received, seen, sha, sqlite_url, write
from tests.unit.federation_audit.assessing.plain import IMAGES, Medium, Plain

CONFIRM, DISMISS, UNSURE = Opinion.CONFIRM, Opinion.DISMISS, Opinion.UNSURE
Opinions = Mapping[Medium, Sequence[Opinion]]


def said(chance: random.Random, images: int = 12) -> Message:
    """Something about one of some images, looks going by pairs; no two messages at one time."""
    image, at = chance.randrange(images), NOON + chance.randrange(40) * DAY_MS + chance.randrange(10_000_000)
    tenant = chance.choice(["default", "default", "second"])
    kind = chance.randrange(20)
    if kind < 8:
        stage = chance.choice([Stage.LIVE] * 5 + [Stage.LIST, Stage.OVERRIDE])
        return judged(
            image,
            Decision.REJECT if stage is Stage.LIST else chance.choice(list(Decision)),
            at=at,
            policy=chance.choice(["p1", "p2"]),
            tenant=tenant,
            looks=[pdq(image // 2, off=chance.choice([0, 3]))] if stage is Stage.LIVE else [],
            stage=stage,
            hash_list=chance.choice(["known@7", "known@8", "other@1"]) if stage is Stage.LIST else "",
        )
    if kind == 8:
        return forgotten(chance.choice("mn"), at=at)
    author = chance.choice(["a.example", "b.example", "c.example", "d.example"])
    url = f"https://i.example/{tenant}/{image}"
    return seen(
        None if kind == 9 else image,
        author if kind < 18 else "",
        actor=chance.choice(["", "k", "l", "m", "n"]) if kind < 18 else "",
        url=url if kind in (9, 10) else "",
        host=chance.choice(["", author, "x.example", "y.example"]),
        post=chance.choice(["1", "2", "3", "4", "5"]),
        at=at,
        posted=chance.choice([None, at - DAY_MS, at + DAY_MS, NOON]),
        sure=chance.choice(list(Confidence)),
        tenant=tenant,
    )


def opinions_on(chance: random.Random, images: int = 12) -> Opinions:
    ways = [[], [CONFIRM, CONFIRM], [CONFIRM, CONFIRM, UNSURE], [DISMISS], [CONFIRM, DISMISS], [CONFIRM]]
    return {(tenant, image): chance.choice(ways) for tenant in ("default", "second") for image in range(images)}


def say(store: Store, opinions: Opinions) -> None:
    for (tenant, image), given_ in opinions.items():
        for number, opinion in enumerate(given_):
            review(store, [sha(image)], opinion, by=(f"reviewer{number}",), tenant=tenant, at=NOON)


class Read(NamedTuple):
    table: ExposureTable
    known: Known

    @property
    def evidence(self) -> Evidence:
        return self.known.evidence


def known(store: Store, verified: Sequence[str] = ("known",)) -> Read:
    with store.reading() as connection:
        return Read(*read_known(connection, verified_lists=verified, local_domains=frozenset()))


def compare(store: Store, messages: Sequence[Message], opinions: Opinions) -> Read:
    """Raises AssertionError where what is read is not what the messages say."""
    plain, found = Plain(messages, opinions, ("known",)), known(store)
    table = found.table
    rows = {}
    for row in range(len(table.media)):
        place = int(table.instance[row])
        name = table.instances[place] if place >= 0 else None
        first = as_day(date.fromordinal(int(table.first[row])))
        rows[name, table.strata[table.stratum[row]].policy, first] = (table.media[row], table.flagged[row])
    flagged = plain.flagged()
    assert rows == {key: (media, flagged.get(key, 0)) for key, media in plain.exposures().items()}
    clusters = clusters_of(store)
    assert {
        (each.instance, each.actor, as_day(each.day), clusters[each.cluster]): (
            str(each.confirmed),
            each.confidence,
            each.image_host,
        )
        for each in found.evidence.incidents
    } == {
        (
            instance,
            actor,
            day,
            frozenset(medium for medium in plain.flagged_ever if plain.cluster(medium) == cluster),
        ): how
        for (instance, actor, day, cluster), how in plain.incidents().items()
    }
    assert len({each.incident_id for each in found.evidence.incidents}) == len(found.evidence.incidents)
    assert {each.stratum.policy: (each.confirmed, each.dismissed) for each in found.evidence.reviews} == plain.reviews()
    return found


def clusters_of(store: Store) -> dict[str, frozenset[Medium]]:
    found: dict[str, set[Medium]] = defaultdict(set)
    tenants = "SELECT m.id, t.text FROM media m JOIN texts t ON t.id = m.tenant_id"
    with store.reading() as connection:
        of = dict(row._tuple() for row in connection.exec_driver_sql(tenants))
        rows = connection.execute(select(FLAGS.c.cluster_id, MEDIA).join(MEDIA, MEDIA.c.id == FLAGS.c.media_id)).all()
    names = {
        number: min(bytes(row.sha256) for row in rows if row.cluster_id == number).hex()
        for number in {row.cluster_id for row in rows}
    }
    for row in rows:
        found[names[row.cluster_id]].add((of[row.id], IMAGES[bytes(row.sha256)]))
    return {cluster: frozenset(media) for cluster, media in found.items()}


def sums_are_tallies(store: Store, found: Known) -> None:
    sums: dict[tuple[str, str], float] = defaultdict(float)
    table = found.table
    for place, stratum, media in zip(table.instance, table.stratum, table.media, strict=True):
        if place >= 0:
            sums[table.instances[place], table.strata[stratum].policy] += media
    with store.reading() as connection:
        strata = read_strata(connection)
        tallies = {
            (each.domain, strata[number].policy): count.exposed
            for each in read_instances(connection)
            for number, count in each.strata.items()
            if not strata[number].is_list
        }
    assert sums == tallies


@pytest.mark.parametrize("seed", range(3))
def test_what_is_read_is_what_the_messages_say(store, seed):
    chance = random.Random(seed)
    messages = [said(chance) for _ in range(500)]
    opinions = opinions_on(chance)
    write(store, *(messages[first : first + 50] for first in range(0, 500, 50)))
    say(store, opinions)
    found = compare(store, messages, opinions)
    sums_are_tallies(store, found)
    assert len(found.evidence.incidents) > 5
    assert {each.confidence for each in found.evidence.incidents} >= {Confidence.CERTAIN, Confidence.LIKELY}


@settings(max_examples=thorough(12), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9), st.integers(1, 60), st.integers(1, 4))
def test_few_messages_of_any_kind_are_read_alike(seed: int, count: int, images: int):
    chance = random.Random(seed)
    messages = [said(chance, images) for _ in range(count)]
    opinions = opinions_on(chance, images)
    with tempfile.TemporaryDirectory() as folder, open_store(sqlite_url(Path(folder))) as opened:
        write(opened, messages)
        say(opened, opinions)
        found = compare(opened, messages, opinions)
        sums_are_tallies(opened, found)
        assert (found.table.flagged <= found.table.media).all()
        assess(found.table, found.evidence, date(2024, 11, 20))


def test_what_is_swept_and_forgotten_is_not_in_it(store):
    chance = random.Random(9)
    messages = [said(chance) for _ in range(400)]
    opinions = opinions_on(chance)
    recorder = write(store, messages)
    say(store, opinions)
    before = known(store)
    recorder._retention_days = 20
    while recorder.tidy(NOON + 40 * DAY_MS):
        pass
    horizon = (NOON + 20 * DAY_MS) // DAY_MS * DAY_MS
    left = [each for each in messages if time_of(each) >= horizon]
    found = compare(store, left, opinions)
    sums_are_tallies(store, found)
    assert 0 < found.table.media.sum() < before.table.media.sum()
    gone = [forgotten(actor, at=NOON + 60 * DAY_MS) for actor in "klmn"]
    recorder.record(received(gone), {})
    found = compare(store, [*left, *gone], opinions)
    sums_are_tallies(store, found)
    assert {each.actor for each in found.evidence.incidents} <= {""}


def time_of(message: Message) -> int:
    times = ("judged_at", "observed_at", "forgotten_at")
    return next(value for name in times if (value := getattr(message, name, None)) is not None)


def test_a_hit_of_a_verified_list_confirms_until_somebody_dismisses_it(store):
    hit = judged(1, Decision.REJECT, stage=Stage.LIST, hash_list="known@7", looks=[])
    write(store, [hit, judged(1), seen(1, "a.example", actor="x")])
    assert [str(each.confirmed) for each in known(store).evidence.incidents] == ["hash"]
    assert known(store, verified=["others"]).evidence.incidents == ()
    assert list(known(store).table.media) == [1.0]  # of the model's stratum alone
    review(store, [sha(1)], CONFIRM)
    assert [str(each.confirmed) for each in known(store).evidence.incidents] == ["reviewers"]
    review(store, [sha(1)], DISMISS)
    assert known(store).evidence.incidents == ()


def test_an_author_who_is_merely_possible_is_told_as_such_until_somebody_is_known(store):
    perhaps = [seen(1, name, sure=Confidence.POSSIBLE, post=name) for name in ("a.example", "b.example")]
    recorder = write(store, [judged(1, Decision.REJECT), *perhaps])
    review(store, [sha(1)])
    found = known(store)
    assert [(each.instance, each.confidence) for each in found.evidence.incidents] == [
        ("a.example", Confidence.POSSIBLE),
        ("b.example", Confidence.POSSIBLE),
    ]
    assert found.table.instances == ()
    results = assess(found.table, found.evidence, date(2024, 10, 10))
    assert [(each.level, len(each.decision.possible)) for each in results] == [(0, 1), (0, 1)]
    recorder.record(received([seen(1, "c.example", actor="x", post="1")]), {})
    assert [each.instance for each in known(store).evidence.incidents] == ["c.example"]


def test_of_several_hosts_the_authors_own_comes_first(store):
    hosts = [seen(1, "m.example", actor="x", host=name, post=name) for name in ("z.example", "b.example")]
    recorder = write(store, [judged(1, Decision.REJECT), *hosts])
    review(store, [sha(1)])
    assert [each.image_host for each in known(store).evidence.incidents] == ["b.example"]
    recorder.record(received([seen(1, "m.example", actor="x", host="m.example", post="own")]), {})
    assert [each.image_host for each in known(store).evidence.incidents] == ["m.example"]


def test_an_old_picture_posted_anew_is_an_incident_of_its_day(store):
    later = NOON + 30 * DAY_MS
    again = [seen(1, "a.example", actor=f"x{n}", posted=later + n, at=later + n, post=str(n)) for n in range(3)]
    write(store, [judged(1, Decision.REJECT), seen(1, "a.example", actor="x", posted=NOON), *again])
    review(store, [sha(1)])
    found = known(store)
    assert len(found.evidence.incidents) == 4
    result = assess(found.table, found.evidence, date(2024, 11, 20))["a.example"]
    assert (len(result.decision.independent), result.decision.media) == (1, 1)
    assert "rebuilt" not in " ".join(result.reasons)


def test_letters_and_clean_ups_are_told(store):
    with store.writing() as connection:
        by = {"noted_by": "alice", "noted_at": NOON}
        connection.execute(insert(REMEDIATIONS), [{"domain": "a.example", "day": 20_000, **by}])
        letter = {"domain": "b.example", "sent_day": 20_001, "way": "mail", **by}
        connection.execute(insert(LETTERS), [letter | {"answered_day": None}, letter | {"answered_day": 20_003}])
    found = known(store).evidence
    assert found.remediations == (Remediation("1", "a.example", date(2024, 10, 4)),)
    assert found.contacts == (
        Contact("1", "b.example", date(2024, 10, 5)),
        Contact("2", "b.example", date(2024, 10, 5), date(2024, 10, 7)),
    )


def test_an_empty_store_is_assessed_as_nobody(store):
    with store.reading() as connection:
        assert newest_period(connection) is None
    found = known(store)
    assert len(assess(found.table, found.evidence, date(2024, 10, 4))) == 0
    write(store, [judged(1)])
    with store.reading() as connection:
        assert newest_period(connection) == date(2024, 10, 1)  # the week began in September, the quarter in October
