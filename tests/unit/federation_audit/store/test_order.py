"""The same messages make the same content, whatever the order they are read in, and however often."""

import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation_audit.store.dump import digest
from federation_audit.store.facts import FLAGGED_FROM
from federation_audit.store.standings import Tallies
from schemas.messages import AnsweredBy, Confidence, Decision, Message, Stage
from schemas.topics import DAY_MS
from tests.examples import thorough
from tests.stores import (
    NOON,
    answered,
    content,
    failed,
    forgotten,
    judged,
    open_store,
    pdq,
    received,
    removed,
    seen,
    sqlite_url,
    write,
)

images = st.integers(0, 4)
times = st.sampled_from([NOON, NOON + 1, NOON + DAY_MS])
domains = st.sampled_from(["a.example", "b.example"])
maybe_names = {"alias": st.sampled_from(["", "x.webp", "y.webp"]), "url": st.sampled_from(["", "https://i.example/1"])}
some_looks = st.lists(
    st.integers(0, 1).flatmap(lambda n: st.sampled_from([pdq(n, off=k) for k in (0, 20, 45)])), max_size=2
)

messages = st.one_of(
    st.builds(
        judged,
        images,
        st.sampled_from(list(Decision)),
        at=times,
        policy=st.sampled_from(["p1", "p2"]),
        looks=some_looks,
        stage=st.sampled_from([Stage.LIVE, Stage.LIST, Stage.OVERRIDE]),
        scan=st.sampled_from(["s1", "s2"]),
    ),
    st.builds(
        judged,
        images,
        st.sampled_from(list(Decision)),
        at=times,
        policy=st.sampled_from(["p1", "p2"]),
        looks=some_looks,
        stage=st.just(Stage.RESCAN),
        hash_list=st.sampled_from(["", "known@1"]),
        scan=st.sampled_from(["s1", "s2"]),
        came=st.sampled_from([NOON - DAY_MS, NOON]),
    ),
    st.builds(answered, images, st.sampled_from([AnsweredBy.DEADLINE, AnsweredBy.VERDICT]), at=times),
    st.builds(removed, images, at=times, aliases=st.sampled_from([(), ("x.webp",)])),
    st.builds(failed, images, at=times),
    st.builds(forgotten, st.sampled_from("mn"), at=times),
    st.builds(
        seen,
        images,
        domains,
        actor=st.sampled_from(["", "m", "n"]),
        community=st.sampled_from(["", "c.example"]),
        at=times,
        posted=st.sampled_from([None, NOON - DAY_MS]),
        sure=st.sampled_from(list(Confidence)),
        post=st.sampled_from(["", "1"]),
        **maybe_names,
    ),
    st.builds(
        seen,
        st.none(),
        domains,
        actor=st.sampled_from(["", "m"]),
        at=times,
        alias=maybe_names["alias"],
        url=st.just("https://i.example/1"),
    ),
    st.builds(seen, st.none(), domains, at=times, alias=st.just("x.webp"), url=maybe_names["url"]),
)


def made_of(batches: list[list[Message]]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, open_store(sqlite_url(Path(folder))) as store:
        write(store, *batches)
        return content(store)


@settings(max_examples=thorough(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(messages, min_size=1, max_size=25), st.randoms(use_true_random=False), st.integers(1, 6))
def test_interleavings_and_repeats_make_the_same_content(said: list[Message], chance: random.Random, size: int):
    mixed = said + chance.sample(said, len(said) // 2)
    chance.shuffle(mixed)
    batches = [mixed[first : first + size] for first in range(0, len(mixed), size)]
    assert made_of(batches) == made_of([said])


@settings(max_examples=thorough(10), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(messages, min_size=1, max_size=25))
def test_tallies_are_the_sum_of_what_media_add(said: list[Message]):
    with tempfile.TemporaryDirectory() as folder, open_store(sqlite_url(Path(folder))) as store:
        recorder = write(store, *([each] for each in said))
        with store.reading() as connection:
            media = connection.exec_driver_sql("SELECT id FROM media").scalars().all()
            tallies = {(r, i, s): (e, f) for r, i, s, e, f, _ in connection.exec_driver_sql("SELECT * FROM tallies")}
        expected: dict[tuple[int, int, int], tuple[int, int]] = {}
        with store.writing() as connection:
            reader: Tallies = recorder._tallies
            lists = {s for s, models in connection.exec_driver_sql("SELECT id, models FROM strata") if not models}
            marked = "SELECT media_id, at FROM marks JOIN texts ON texts.id = mark_id WHERE text = "
            rescanned_at = {medium: int(at) for medium, at in connection.exec_driver_sql(marked + "'rescanned'")}
            relisted = {medium for medium, _ in connection.exec_driver_sql(marked + "'relisted'")}
            for medium, standing in reader.read(connection, media).items():
                current = reader.current(connection, standing)
                judgements = [
                    (stratum, decision)
                    for at, _, decision, stratum in standing.judgements
                    if (at >= rescanned_at.get(medium, 0), decision > 0 or medium not in relisted)[stratum in lists]
                ]
                if current is not None:
                    judgements.append((0, current[0]))
                for role, instance in standing.seen:
                    for stratum, decision in judgements:
                        exposed, flagged = expected.get((role, instance, stratum), (0, 0))
                        flagged += decision >= FLAGGED_FROM
                        expected[role, instance, stratum] = (exposed + 1, flagged)
        assert tallies == expected


@settings(max_examples=thorough(12), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(messages, min_size=1, max_size=25), st.integers(1, 5))
def test_what_is_swept_might_never_have_come(said: list[Message], size: int):
    now = NOON + DAY_MS + DAY_MS // 2  # the horizon of one day: midnight between the two days of the messages
    batches = [said[first : first + size] for first in range(0, len(said), size)]
    with tempfile.TemporaryDirectory() as one, open_store(sqlite_url(Path(one))) as swept:
        recorder = write(swept, *batches)
        recorder._retention_days = 1
        while recorder.tidy(now):
            pass
        with tempfile.TemporaryDirectory() as other, open_store(sqlite_url(Path(other))) as fresh:
            late = write(fresh, retention_days=1)
            late.tidy(now)
            for batch in batches:
                late.record(received(batch), {})
            assert content(swept) == content(fresh)
            with swept.reading() as one_reads, fresh.reading() as other_reads:
                assert digest(one_reads) == digest(other_reads)
