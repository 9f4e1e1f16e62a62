"""What counts, and how often."""

import pytest

from federation_audit.assessing.exposure import flagged_strata
from federation_audit.store.engine import Store
from federation_audit.store.facts import Role
from federation_audit.store.queries import (
    Count,
    read_author_instances,
    read_days,
    read_flagged,
    read_incidents,
    read_instance,
    read_instances,
    read_judgements,
    read_origins,
    read_strata,
)
from schemas.messages import AnsweredBy, Confidence, Decision, Stage, Verdict
from schemas.topics import DAY_MS
from tests.stores import NOON, answered, failed, judged, pdq, pseudonym, removed, seen, sha, write

REJECT, REVIEW = Decision.REJECT, Decision.REVIEW


def count(store: Store, domain: str, role: Role = Role.AUTHOR) -> Count:
    with store.reading() as connection:
        return read_instance(connection, domain, role).now


def incidents(store: Store, domain: str) -> int:
    with store.reading() as connection:
        found = read_instance(connection, domain).incidents
        assert found == len(read_incidents(connection, domain))
    return found


def test_an_image_counts_once_however_often_it_is_judged_answered_and_seen(store):
    views = [judged(1, REJECT, at=NOON + n) for n in range(3)] + [answered(1, at=NOON + n) for n in range(3)]
    origins = [seen(1, "a.example", post=f"https://a.example/post/{n}") for n in range(3)]
    write(store, [*views, *origins], [*views, *origins])
    assert count(store, "a.example") == Count(1, 1)


def test_an_image_of_several_authors_counts_once_for_each_of_their_instances(store):
    origins = [seen(1, f"{name}.example", actor=f"{actor} of {name}") for name in "ab" for actor in ("x", "y")]
    write(store, [judged(1, REVIEW)], origins)
    assert [count(store, f"{name}.example") for name in "abc"] == [Count(1, 1), Count(1, 1), Count(0, 0)]


def test_author_community_and_host_are_three_tallies(store):
    write(store, [judged(1, REJECT), seen(1, "author.example", community="town.example", host="imgur.example")])
    for role in Role:
        with store.reading() as connection:
            (only,) = read_instances(connection, role)
        assert (only.domain, only.now) == (
            {
                Role.AUTHOR: "author.example",
                Role.COMMUNITY: "town.example",
                Role.HOST: "imgur.example",
            }[role],
            Count(1, 1),
        )
    assert incidents(store, "imgur.example") == 0


@pytest.mark.parametrize(
    ("sure", "exposed"), [(Confidence.CERTAIN, 1), (Confidence.LIKELY, 1), (Confidence.POSSIBLE, 0)]
)
def test_what_is_only_possible_is_kept_and_does_not_count(store, sure, exposed):
    write(store, [judged(1, REJECT), seen(1, "a.example", sure=sure)])
    assert count(store, "a.example") == Count(exposed, exposed)
    with store.reading() as connection:
        assert len(read_origins(connection, 1)) == 1


def test_each_stratum_keeps_its_own_count_and_the_newest_verdict_is_the_state_now(store):
    newer = judged(1, at=NOON + 5, policy="p2")
    write(store, [newer, seen(1, "a.example"), judged(1, REJECT, at=NOON), judged(1, at=NOON - 9)])
    with store.reading() as connection:
        instance, strata = read_instance(connection, "a.example"), read_strata(connection)
        by_policy = {strata[number].policy: each for number, each in instance.strata.items()}
        judgements = read_judgements(connection, 1)
    assert by_policy == {"p1": Count(1, 1), "p2": Count(1, 0)}
    assert instance.now == Count(1, 0)
    assert [(each["decision"], each["rules"]) for each in judgements] == [("accept", []), ("reject", ["explicit"])]


def rescanned(image: int, decision: Decision, *, at: int, policy: str = "p2", hash_list: str = "") -> Verdict:
    return judged(image, decision, at=at, policy=policy, stage=Stage.RESCAN, hash_list=hash_list, came=NOON)


def strata_of(store: Store, domain: str) -> dict[str, Count]:
    """An instance's count in each stratum, by policy or hash list; those without any are left out."""
    with store.reading() as connection:
        instance, strata = read_instance(connection, domain), read_strata(connection)
    return {strata[number].policy or strata[number].hash_list: each for number, each in instance.strata.items()}


def test_a_rescan_moves_the_count_to_the_new_stratum_and_back_when_it_is_undone(store):
    write(store, [judged(1, at=NOON), judged(2, REJECT, at=NOON), seen(1, "a.example"), seen(2, "a.example")])
    assert strata_of(store, "a.example") == {"p1": Count(2, 1)}
    later = NOON + DAY_MS
    write(store, [rescanned(1, REJECT, at=later)])
    assert strata_of(store, "a.example") == {"p1": Count(1, 1), "p2": Count(1, 1)}
    write(store, [rescanned(2, REJECT, at=later)])
    assert strata_of(store, "a.example") == {"p2": Count(2, 2)}
    assert count(store, "a.example") == Count(2, 2)
    write(store, [rescanned(n, d, at=later + 1, policy="p1") for n, d in ((1, Decision.ACCEPT), (2, REJECT))])
    assert strata_of(store, "a.example") == {"p1": Count(2, 1)}
    assert count(store, "a.example") == Count(2, 1)
    with store.reading() as connection:
        assert connection.exec_driver_sql("SELECT SUM(exposed), SUM(flagged) FROM periods").one() == (2, 1)


def test_what_a_rescan_takes_out_of_a_stratum_is_not_flagged_there_for_the_statistics(store):
    write(store, [judged(1, REJECT, at=NOON), judged(2, REJECT, at=NOON), rescanned(1, REJECT, at=NOON + 5)])
    with store.reading() as connection:
        strata = read_strata(connection)
        flagged = flagged_strata(connection, strata)
        media = {number: bytes(hash_) for number, hash_ in connection.exec_driver_sql("SELECT id, sha256 FROM media")}
    by_policy = {media[number]: [strata[each].policy for each in found] for number, found in flagged.items()}
    assert by_policy == {sha(1): ["p2"], sha(2): ["p1"]}


def test_the_instances_of_media_are_those_surely_known_of_the_file_or_of_its_names(store):
    link = seen(2, alias="x.webp")
    by_name = seen(None, "b.example", alias="x.webp")
    unsure = seen(3, "c.example", sure=Confidence.POSSIBLE)
    write(
        store,
        [judged(n) for n in (1, 2, 3)],
        [seen(1, "a.example"), seen(1, "d.example", post="2"), link, by_name, unsure],
    )
    asked = {("default", sha(number)) for number in (1, 2, 3, 4)} | {("other", sha(1))}
    with store.reading() as connection:
        assert read_author_instances(connection, asked) == {
            ("default", sha(1)): {"a.example", "d.example"},
            ("default", sha(2)): {"b.example"},
        }


def test_a_rescan_does_not_move_images_to_its_own_day(store):
    write(store, [judged(1, at=NOON), rescanned(1, REJECT, at=NOON + 3 * DAY_MS)])
    with store.reading() as connection:
        judged_on = [each for each in read_days(connection) if each[2].startswith("judged:")]
    assert judged_on == [(20_000, "default", "judged:reject", 1)]


def test_a_live_verdict_after_a_rescan_counts_in_its_stratum_again(store):
    write(store, [judged(1, REJECT, at=NOON), seen(1, "a.example"), rescanned(1, Decision.ACCEPT, at=NOON + 5)])
    write(store, [judged(1, REJECT, at=NOON + 9)])
    assert strata_of(store, "a.example") == {"p1": Count(1, 1), "p2": Count(1, 0)}
    assert count(store, "a.example") == Count(1, 1)


def test_a_list_that_a_rescan_hits_adds_a_hit_and_takes_it_back(store):
    write(store, [judged(1, at=NOON), seen(1, "a.example"), rescanned(1, REJECT, at=NOON + 5, hash_list="known@2")])
    assert strata_of(store, "a.example") == {"p1": Count(1, 0), "known@2": Count(1, 1)}
    assert count(store, "a.example") == Count(1, 1)
    write(store, [rescanned(1, Decision.ACCEPT, at=NOON + 6, hash_list="known@2")])
    assert strata_of(store, "a.example") == {"p1": Count(1, 0)}
    assert count(store, "a.example") == Count(1, 0)


def test_a_rescan_by_a_policy_leaves_the_hits_of_lists(store):
    hit = judged(1, REJECT, at=NOON + 1, stage=Stage.LIST, hash_list="known@1")
    write(store, [judged(1, at=NOON), hit, seen(1, "a.example"), rescanned(1, Decision.ACCEPT, at=NOON + 5)])
    assert strata_of(store, "a.example") == {"p2": Count(1, 0), "known@1": Count(1, 1)}


def test_a_hit_on_a_list_is_in_the_lists_own_stratum(store):
    write(store, [judged(1, REJECT, stage=Stage.LIST, hash_list="known@7"), seen(1, "a.example")])
    with store.reading() as connection:
        (stratum,) = read_strata(connection).values()
    assert (stratum.is_list, stratum.hash_list) == (True, "known@7")
    assert count(store, "a.example") == Count(1, 1)


def test_a_moderators_denial_is_no_judgement_of_any_stratum(store):
    write(store, [judged(1, at=NOON), judged(1, REJECT, at=NOON + 1, stage=Stage.OVERRIDE), seen(1, "a.example")])
    assert count(store, "a.example") == Count(1, 0)
    with store.reading() as connection:
        assert (20_000, "default", "denied", 1) in read_days(connection)


def test_two_spellings_of_a_domain_are_one_and_what_is_no_domain_is_not_known(store):
    origins = [
        seen(1, "Bücher.example", post="1"),
        seen(1, "xn--bcher-kva.example", post="2"),
        seen(1, "<b>", post="3"),
    ]
    write(store, [judged(1), *origins])
    with store.reading() as connection:
        assert [each.domain for each in read_instances(connection)] == ["xn--bcher-kva.example"]


def test_an_origin_of_an_image_never_judged_counts_nothing_until_it_is(store):
    write(store, [seen(1, "a.example"), answered(1, AnsweredBy.DEADLINE)])
    assert count(store, "a.example") == Count()
    write(store, [judged(1, REJECT)])
    assert count(store, "a.example") == Count(1, 1)


def test_of_one_origin_the_latest_observation_counts(store):
    write(store, [judged(1), seen(1, "new.example", at=NOON + 1), seen(1, "old.example")])
    assert (count(store, "new.example"), count(store, "old.example")) == (Count(1, 0), Count())


def test_an_origin_by_address_or_alias_counts_once_a_message_names_the_hash_as_well(store):
    write(store, [judged(1), judged(2), seen(url="https://i.example/1", author="a.example")])
    write(store, [seen(alias="two.webp", author="b.example")])
    assert (count(store, "a.example"), count(store, "b.example")) == (Count(), Count())
    write(store, [seen(1, url="https://i.example/1"), removed(2, aliases=["two.webp"])])
    assert (count(store, "a.example"), count(store, "b.example")) == (Count(1, 0), Count(1, 0))


def test_an_address_is_followed_through_an_alias_until_it_is_linked_itself(store):
    by_url = seen(url="https://i.example/1", author="a.example", post="https://a.example/post/1")
    write(store, [judged(1)], [judged(2)])
    write(store, [by_url, seen(alias="one", url="https://i.example/1"), seen(1, alias="one")])
    assert count(store, "a.example") == Count(1, 0)
    with store.reading() as connection:
        assert len(read_origins(connection, 1)) == 3
    write(store, [seen(2, url="https://i.example/1")])
    with store.reading() as connection:
        assert [len(read_origins(connection, medium)) for medium in (1, 2)] == [2, 2]


def test_two_files_that_one_address_showed_do_not_answer_for_each_other(store):
    url = "https://i.example/changing"
    write(store, [judged(1, REJECT), judged(2), seen(1, alias="one", url=url), seen(2, alias="two", url=url)])
    write(store, [seen(alias="two", author="innocent.example")])
    assert count(store, "innocent.example") == Count(1, 0)


def test_an_incident_is_an_actor_a_day_and_a_look(store):
    alike = [judged(n, REJECT, looks=[pdq(0, off=8 * n)]) for n in range(3)]
    same_day = [seen(n, "a.example", actor="x", posted=NOON + n) for n in range(3)]
    write(store, alike, same_day)
    assert incidents(store, "a.example") == 1
    write(store, [seen(0, "a.example", actor="y", posted=NOON)])
    assert incidents(store, "a.example") == 2
    write(store, [seen(0, "a.example", actor="x", post="again", posted=NOON - DAY_MS)])
    assert incidents(store, "a.example") == 3
    write(store, [judged(9, REVIEW), seen(9, "a.example", actor="x", posted=NOON)])
    assert incidents(store, "a.example") == 4
    with store.reading() as connection:
        first = read_incidents(connection, "a.example")[-1]
        assert (first.actor, first.day) == (("2024Q4", pseudonym("x")), 19_999)
        assert {each.sha256 for each in read_flagged(connection, "a.example")} == {sha(n) for n in (0, 1, 2, 9)}


def test_looks_that_a_third_one_links_are_one_cluster_and_poor_hashes_link_nothing(store):
    far_apart = [judged(1, REJECT, looks=[pdq(0)]), judged(2, REJECT, looks=[pdq(0, off=60)])]
    posted = [seen(n, "a.example", actor="x", posted=NOON) for n in range(5)]
    write(store, far_apart, posted)
    assert incidents(store, "a.example") == 2
    write(store, [judged(3, REJECT, looks=[pdq(0, off=30)], quality=49)])
    assert incidents(store, "a.example") == 3
    write(store, [judged(4, REJECT, looks=[pdq(77), pdq(0, off=30)])])
    assert incidents(store, "a.example") == 2


def test_an_actor_who_is_not_known_is_one_and_none_beside_a_known_one(store):
    write(store, [judged(1, REJECT), judged(2, REJECT)])
    write(store, [seen(n, "a.example", post=str(p)) for n in (1, 2) for p in range(3)])
    assert incidents(store, "a.example") == 2
    write(store, [seen(1, "a.example", actor="x", posted=NOON - 3 * DAY_MS)])
    assert incidents(store, "a.example") == 2
    with store.reading() as connection:
        assert [each.actor is None for each in read_incidents(connection, "a.example")] == [True, False]


def test_what_is_not_flagged_any_more_is_no_incident_and_stays_flagged_in_its_stratum(store):
    write(store, [judged(1, REJECT), seen(1, "a.example", actor="x")])
    write(store, [judged(1, at=NOON + 1, policy="p2")])
    assert incidents(store, "a.example") == 0
    with store.reading() as connection:
        (medium,) = read_flagged(connection, "a.example")
        assert not medium.now
        assert sum(each.flagged for each in read_instance(connection, "a.example").strata.values()) == 1


def test_a_post_from_the_future_is_as_young_as_its_observation(store):
    write(store, [judged(1, REJECT), seen(1, "a.example", actor="x", at=NOON, posted=NOON + 400 * DAY_MS)])
    with store.reading() as connection:
        assert [each.day for each in read_incidents(connection, "a.example")] == [20_000]


def test_sums_by_day_count_an_image_on_the_day_of_its_latest_verdict_and_answer(store):
    write(store, [answered(1, AnsweredBy.DEADLINE), answered(2, AnsweredBy.SPOOLED), failed(2)])
    with store.reading() as connection:
        assert (20_000, "default", "unjudged", 2) in read_days(connection)
    write(store, [judged(1, REJECT, at=NOON + DAY_MS), removed(1, at=NOON + DAY_MS), answered(1, at=NOON + DAY_MS)])
    with store.reading() as connection:
        assert read_days(connection) == [
            (20_000, "default", "answered:deadline:accepted", 1),
            (20_000, "default", "answered:spooled:accepted", 1),
            (20_000, "default", "failed:model-failed", 1),
            (20_000, "default", "judged_late", 1),
            (20_000, "default", "unjudged", 1),
            (20_001, "default", "answered:verdict:accepted", 1),
            (20_001, "default", "enforced:removed", 1),
            (20_001, "default", "judged:reject", 1),
        ]


def test_texts_with_nuls_and_a_whole_line_of_foreign_marks_are_taken(store):
    strange = "\0\u202e" + "Ж" * 200
    write(store, [judged(1, REJECT), seen(1, "a.example", actor="x", alias=strange, post=strange)])
    assert incidents(store, "a.example") == 1


def test_the_same_bytes_in_two_tenants_are_two_images_of_one_cluster(store):
    for tenant in ("one", "two"):
        write(store, [judged(1, REJECT, tenant=tenant, looks=[]), seen(1, "a.example", actor="x", tenant=tenant)])
    assert count(store, "a.example") == Count(2, 2)
    assert incidents(store, "a.example") == 1
