"""The queue and what an answer does to it."""

import json
import random

import pytest
from sqlalchemy import select

from federation_audit.accounts.actions import Actor
from federation_audit.accounts.tables import ACTIONS
from federation_audit.reviewing.answering import Asked, answer_media, answer_rows
from federation_audit.reviewing.errors import CapReached, ClusterChanged, NothingToUndo
from federation_audit.reviewing.giving import last_answer, undo
from federation_audit.reviewing.outcomes import Opinion, Outcome, Reviewed, read_reviewed
from federation_audit.reviewing.overriding import Wish, count_unpublished, read_lists
from federation_audit.reviewing.pace import PAUSE_MS, PUT_OFF, read_pace
from federation_audit.reviewing.queue import count_waiting, read_details, read_waiting
from federation_audit.reviewing.settings import ReviewSettings
from federation_audit.reviewing.settled import read_settled
from federation_audit.reviewing.tables import ORDERS
from federation_audit.store.tables import EVIDENCE, FLAGS, MEDIA, TEXTS
from schemas.messages import Decision, OverrideEffect, Stage
from schemas.topics import DAY_MS, MINUTE_MS
from tests.stores import NOON, judged, open_store, pdq, seen, sha, write

ALICE, BOB, CAROL = Actor("alice"), Actor("bob"), Actor("carol")
SETTINGS = ReviewSettings()
ALLOW = Wish(OverrideEffect.ALLOW, "a painting")
LIST = "known"


def fill(store):
    """1, 2, 3 look alike, 3 in another tenant; 4 is alone, newer; 5 accepted; 6 on a list; 7 older than all."""
    write(
        store,
        [
            judged(1, Decision.REJECT, at=NOON),
            judged(2, Decision.REVIEW, at=NOON + 1, looks=[pdq(1, off=5)]),
            judged(3, Decision.REJECT, at=NOON + 2, looks=[pdq(1, off=9)], tenant="other"),
            judged(4, Decision.REJECT, at=NOON + 10),
            judged(5, at=NOON),
            judged(6, Decision.REJECT, at=NOON + 20),
            judged(6, Decision.REJECT, at=NOON + 20, stage=Stage.LIST, hash_list=f"{LIST}@7", looks=[]),
            judged(7, Decision.REVIEW, at=NOON - 10),
            seen(1, "bad.example", actor="one", community="town.example", host="host.example"),
            seen(2, "bad.example", actor="two"),
            seen(4, "bad.example", actor="one"),
            seen(7, "calm.example"),
        ],
    )


def queue(store, who="alice", **options):
    with store.reading() as connection:
        return read_waiting(connection, who, **options)[0]


def numbers(rows):
    known = {sha(number): number for number in range(20)}
    return [sorted(known[sha256] for _, sha256 in row.media) for row in rows]


def ask(store, by, rows, opinion, *, at=NOON, note="", wish=None, settings=SETTINGS):
    asked = [Asked(row.tenant, row.name, row.seen) for row in rows]
    with store.writing() as connection:
        return answer_rows(connection, by, asked, opinion, note=note, at=at, settings=settings, wish=wish)


def row_of(store, number, who="alice"):
    return next(row for row in queue(store, who) if sha(number) in {sha256 for _, sha256 in row.media})


def outcome(store, number, tenant="default"):
    with store.reading() as connection:
        found = read_reviewed(connection).get((tenant, sha(number)))
    return None if found is None else found.outcome


def test_rows_are_clusters_in_a_tenant_the_oldest_first(store):
    fill(store)
    rows = queue(store, verified_lists=(LIST,))
    assert numbers(rows) == [[7], [1, 2], [3], [4]]
    assert [row.tenant for row in rows] == ["default", "default", "other", "default"]
    assert rows[1].name == min(sha(1), sha(2))
    assert numbers(queue(store))[-1] == [6], "of a list that nobody verified, people judge the hits"
    assert numbers(queue(store, tenant="other")) == [[3]]
    assert numbers(queue(store, verified_lists=(LIST,), start=1, size=2)) == [[1, 2], [3]]
    assert numbers(queue(store, author="BAD.ex")) == [[1, 2], [4]]
    with store.reading() as connection:
        assert count_waiting(connection, verified_lists=(LIST,)) == 4


def test_a_row_says_where_its_images_come_from_and_how_many_look_like_them(store):
    fill(store)
    with store.reading() as connection:
        rows, total = read_waiting(connection, "alice", verified_lists=(LIST,))
        assert total == 4
        calm, bad, other, _ = read_details(connection, rows)
    assert (bad.images, bad.near, bad.accounts) == (2, 2, 2)
    assert bad.authors == {"bad.example": 2} and bad.communities == {"town.example"} and bad.hosts == {"host.example"}
    assert bad.rules == {"explicit"} and bad.scores == {"m/nsfw": 0.5} and not bad.rejected
    assert (calm.authors, calm.accounts, calm.near) == ({"calm.example": 1}, 0, 0)
    assert other.authors == {} and other.unattributed == 1 and other.rejected


def test_what_could_settle_an_incident_comes_first_whatever_others_said(store):
    fill(store)
    ask(store, BOB, [row_of(store, 4, "bob")], Opinion.UNSURE)
    assert numbers(queue(store, evidence=("bad.example",), verified_lists=(LIST,))) == [[4], [1, 2], [7], [3]]
    ask(store, BOB, [row_of(store, 1, "bob")], Opinion.CONFIRM)
    assert numbers(queue(store, evidence=("bad.example",), verified_lists=(LIST,))) == [[1, 2], [4], [7], [3]]
    assert numbers(queue(store, verified_lists=(LIST,))) == [[7], [1, 2], [3], [4]], "nobody has evidence: by age"


def test_two_reviewers_confirm_and_one_is_not_two(store):
    fill(store)
    row = row_of(store, 1)
    ask(store, ALICE, [row], Opinion.CONFIRM)
    assert [1, 2] not in numbers(queue(store)) and [1, 2] in numbers(queue(store, "bob"))
    assert ask(store, ALICE, [row], Opinion.CONFIRM) is None, "a second click"
    assert outcome(store, 1) is Outcome.OPEN
    ask(store, BOB, [row_of(store, 1, "bob")], Opinion.CONFIRM, at=NOON + 5)
    assert outcome(store, 1) is outcome(store, 2) is Outcome.CONFIRMED
    assert outcome(store, 3, "other") is None, "another tenant's image is judged there"
    assert [1, 2] not in numbers(queue(store, "carol"))
    with store.reading() as connection:
        [settled] = read_settled(connection)
    assert (settled.images, settled.at, settled.authors) == (2, NOON + 5, ("bad.example",))
    assert [each.reviewer for each in settled.reviews] == ["alice", "bob"]


def test_a_dispute_comes_back_for_those_who_have_not_answered(store):
    fill(store)
    ask(store, ALICE, [row_of(store, 4)], Opinion.DISMISS)
    assert [4] not in numbers(queue(store, "bob")), "one dismissal settles it"
    with store.writing() as connection:
        answer_media(connection, BOB, "default", [sha(4)], Opinion.CONFIRM, note="", at=NOON, settings=SETTINGS)
    assert outcome(store, 4) is Outcome.DISPUTED
    assert [4] in numbers(queue(store, "carol")) and [4] not in numbers(queue(store, "bob"))
    assert not row_of(store, 4, "carol").others_agree
    ask(store, CAROL, [row_of(store, 4, "carol")], Opinion.CONFIRM)
    assert outcome(store, 4) is Outcome.DISPUTED


def test_an_answer_is_for_what_was_shown(store):
    fill(store)
    row, other = row_of(store, 1), row_of(store, 4)
    write(store, [judged(8, Decision.REJECT, looks=[pdq(1, off=2)])])
    with pytest.raises(ClusterChanged):
        ask(store, ALICE, [other, row], Opinion.CONFIRM)
    assert outcome(store, 4) is None, "all or none"
    ask(store, ALICE, [other, row_of(store, 8)], Opinion.CONFIRM)
    with store.reading() as connection:
        assert len(read_reviewed(connection)) == 4
        log = connection.execute(select(ACTIONS).where(ACTIONS.c.what == "review given")).all()
    assert [json.loads(each.detail)["images"] for each in log] == [1, 3]
    assert {each.about.partition("/")[0] for each in log} == {"default"}


def test_the_latest_opinion_replaces_the_one_before_and_undo_brings_it_back(store):
    fill(store)
    ask(store, ALICE, [row_of(store, 4)], Opinion.DISMISS, at=NOON, note="a statue")
    with store.writing() as connection:
        answer_media(connection, ALICE, "default", [sha(4)], Opinion.UNSURE, note="", at=NOON + 1, settings=SETTINGS)
    assert outcome(store, 4) is Outcome.OPEN
    with store.writing() as connection:
        last = last_answer(connection, "alice", since=0)
        assert undo(connection, ALICE, last.id, at=NOON + 2) == 1
    with store.reading() as connection:
        [review] = read_reviewed(connection)["default", sha(4)].reviews
    assert (review.opinion, review.at, review.note) == (Opinion.DISMISS, NOON, "a statue")
    with pytest.raises(NothingToUndo), store.writing() as connection:
        undo(connection, ALICE, last.id, at=NOON + 3)


def test_undo_takes_back_a_whole_answer_and_only_the_last(store):
    fill(store)
    first = ask(store, ALICE, [row_of(store, 7)], Opinion.CONFIRM, at=NOON)
    second = ask(store, ALICE, [row_of(store, 1), row_of(store, 4)], Opinion.CONFIRM, at=NOON + 1)
    with pytest.raises(NothingToUndo), store.writing() as connection:
        undo(connection, ALICE, first, at=NOON + 2)
    with pytest.raises(NothingToUndo), store.writing() as connection:
        undo(connection, BOB, second, at=NOON + 2)
    with store.writing() as connection:
        assert undo(connection, ALICE, second, at=NOON + 2) == 3
        assert last_answer(connection, "alice", since=0).id == first
        assert set(read_reviewed(connection)) == {("default", sha(7))}
        logged = connection.execute(select(ACTIONS.c.what).order_by(ACTIONS.c.id.desc()).limit(1)).scalar()
    assert logged == "review undone"


def test_the_cap_counts_rows_and_starts_anew_each_day(store):
    fill(store)
    settings = ReviewSettings(daily_cap=2)
    midnight = NOON - NOON % DAY_MS
    ask(store, ALICE, [row_of(store, 1)], Opinion.UNSURE, at=midnight, settings=settings)
    with pytest.raises(CapReached):
        ask(store, ALICE, [row_of(store, 4), row_of(store, 7)], Opinion.CONFIRM, at=NOON, settings=settings)
    assert outcome(store, 4) is None
    ask(store, ALICE, [row_of(store, 4)], Opinion.CONFIRM, at=NOON, settings=settings)
    with pytest.raises(CapReached):
        ask(store, ALICE, [row_of(store, 7)], Opinion.CONFIRM, at=NOON, settings=settings)
    ask(store, BOB, [row_of(store, 7, "bob")], Opinion.CONFIRM, at=NOON, settings=settings)
    ask(store, ALICE, [row_of(store, 7)], Opinion.CONFIRM, at=midnight + DAY_MS, settings=settings)
    with store.reading() as connection:
        assert read_pace(connection, "alice", settings, NOON).left == 0


def test_a_break_is_due_after_a_stretch_without_a_pause(store):
    write(store, [judged(number, Decision.REJECT, at=NOON + number) for number in range(30)])
    settings = ReviewSettings(break_after_min=10)

    def pace(at):
        with store.reading() as connection:
            return read_pace(connection, "alice", settings, at)

    for place in range(4):  # every four minutes
        ask(store, ALICE, queue(store)[:1], Opinion.UNSURE, at=NOON + place * 4 * MINUTE_MS)
    assert not pace(NOON + 9 * MINUTE_MS).break_due
    assert pace(NOON + 12 * MINUTE_MS).break_due
    assert pace(NOON + 12 * MINUTE_MS).stretch_ms == 12 * MINUTE_MS
    after = NOON + 12 * MINUTE_MS + PAUSE_MS
    assert pace(after).stretch_ms == 0, "that was a pause"
    with store.writing() as connection:
        from federation_audit.accounts.actions import record

        record(connection, ALICE, PUT_OFF, at=NOON + 13 * MINUTE_MS)
    assert not pace(NOON + 14 * MINUTE_MS).break_due, "they know"
    assert pace(NOON + 12 * MINUTE_MS).done == 4


def orders(store):
    with store.reading() as connection:
        return connection.execute(select(ORDERS).order_by(ORDERS.c.id)).all()


def test_a_dismissal_orders_an_override_for_each_file_and_its_tenant(store):
    fill(store)
    ask(store, ALICE, [row_of(store, 1), row_of(store, 3)], Opinion.DISMISS, wish=ALLOW)
    found = orders(store)
    assert {(each.tenant, bytes(each.hash)) for each in found} == {
        ("default", sha(1)),
        ("default", sha(2)),
        ("other", sha(3)),
    }
    assert {(each.kind, each.distance, each.effect, each.reason) for each in found} == {
        ("sha256", 0, "allow", "a painting")
    }
    with store.reading() as connection:
        assert count_unpublished(connection) == 3
        assert last_answer(connection, "alice", since=0).in_force == 0


def test_by_look_it_orders_one_for_each_frame_as_well(store):
    fill(store)
    wish = Wish(OverrideEffect.ALLOW, "a painting", distance=20)
    ask(store, ALICE, [row_of(store, 4)], Opinion.DISMISS, wish=wish)
    assert [(each.kind, each.distance, bytes(each.hash)) for each in orders(store)] == [
        ("sha256", 0, sha(4)),
        ("pdq", 20, pdq(4)),
    ]
    with pytest.raises(ValueError, match="distance"):
        Wish(OverrideEffect.ALLOW, "x", distance=65)


def test_no_override_lets_in_what_is_disputed_or_on_a_list(store):
    fill(store)
    ask(store, BOB, [row_of(store, 4, "bob")], Opinion.CONFIRM)
    ask(store, ALICE, [row_of(store, 4)], Opinion.DISMISS, wish=ALLOW)
    ask(store, ALICE, [row_of(store, 6)], Opinion.DISMISS, wish=ALLOW)
    assert orders(store) == []
    admin = Wish(OverrideEffect.ALLOW, "a test picture", all_of_them=True)
    ask(store, BOB, [row_of(store, 7, "bob")], Opinion.CONFIRM)
    with store.writing() as connection:
        answer_media(
            connection, CAROL, "default", [sha(6)], Opinion.DISMISS, note="", at=NOON, settings=SETTINGS, wish=admin
        )
    assert [bytes(each.sha256) for each in orders(store)] == [sha(6)]


def test_a_denial_is_ordered_only_for_what_is_not_refused_yet(store):
    fill(store)
    deny = Wish(OverrideEffect.DENY, "report 4711", all_of_them=True)
    ask(store, ALICE, [row_of(store, 1)], Opinion.CONFIRM, wish=deny)
    assert [(each.effect, bytes(each.sha256)) for each in orders(store)] == [("deny", sha(2))]


def test_undo_cancels_what_is_not_published_and_takes_back_what_is(store):
    fill(store)
    first = ask(store, ALICE, [row_of(store, 4)], Opinion.DISMISS, wish=ALLOW)
    with store.writing() as connection:
        undo(connection, ALICE, first, at=NOON + 1)
    assert orders(store) == []
    second = ask(store, ALICE, [row_of(store, 4)], Opinion.DISMISS, wish=ALLOW, at=NOON + 2)
    with store.writing() as connection:
        connection.execute(ORDERS.update().values(published_at=NOON + 3))
        undo(connection, ALICE, second, at=NOON + 4)
    assert [(each.effect, each.published_at) for each in orders(store)] == [("allow", NOON + 3), ("lift", None)]


def test_reviews_outlive_what_they_are_about(store):
    fill(store)
    ask(store, ALICE, [row_of(store, 4)], Opinion.DISMISS)
    write(store).clear()
    with store.reading() as connection:
        [settled] = read_settled(connection)
    assert settled.name == sha(4) and settled.authors == ()
    assert queue(store) == []


def write_at_random(store, chance):
    """Images of two tenants, some alike, some on a list, seen on three instances; what three reviewers say of them."""
    messages = []
    for number in range(120):
        looks = [pdq(chance.randrange(60), off=chance.randrange(4))]
        tenant, at = chance.choice(("default", "other")), NOON + number * 7 % 60
        decision = chance.choice((Decision.ACCEPT, Decision.REVIEW, Decision.REJECT, Decision.REJECT))
        messages.append(judged(number, decision, at=at, looks=looks, tenant=tenant))
        if chance.random() < 0.2:
            on_list = {"stage": Stage.LIST, "hash_list": f"{LIST}@7", "looks": []}
            messages.append(judged(number, Decision.REJECT, at=at, tenant=tenant, **on_list))
        if chance.random() < 0.7:
            messages.append(
                seen(number, chance.choice(("bad.example", "calm.example", "small.example")), tenant=tenant)
            )
    write(store, messages)
    for by in (ALICE, BOB, CAROL):
        with store.writing() as connection:
            for number in chance.sample(range(120), 40):
                for tenant in ("default", "other"):
                    answer_media(
                        connection,
                        by,
                        tenant,
                        [sha(number)],
                        chance.choice(list(Opinion)),
                        note="",
                        at=NOON,
                        settings=SETTINGS,
                    )


def rows_one_by_one(connection, who, *, verified, evidence, author):
    """The queue as its words say: each image is looked at by itself; tenant and hashes of each row."""
    reviewed, lists = read_reviewed(connection), read_lists(connection)
    rows = {}
    query = (
        select(FLAGS.c.media_id, FLAGS.c.cluster_id, FLAGS.c.flagged_at, TEXTS.c.text.label("tenant"), MEDIA.c.sha256)
        .join(MEDIA, MEDIA.c.id == FLAGS.c.media_id)
        .join(TEXTS, TEXTS.c.id == MEDIA.c.tenant_id)
        .where(FLAGS.c.now == 1)
    )
    for each in connection.execute(query).all():
        said = reviewed.get((each.tenant, each.sha256), Reviewed.of(()))
        mine = who in {one.reviewer for one in said.reviews}
        hit = bool(lists.get(each.media_id, set()) & verified) and said.outcome is not Outcome.DISPUTED
        if not mine and not hit and said.outcome not in (Outcome.CONFIRMED, Outcome.DISMISSED):
            rows.setdefault((each.cluster_id, each.tenant), []).append((each, bool(said.reviews)))
    found = []
    for (cluster, tenant), media in rows.items():
        authors = {
            connection.execute(select(TEXTS.c.text).where(TEXTS.c.id == number)).scalar_one()
            for each, _ in media
            for number in connection.scalars(
                select(EVIDENCE.c.instance_id).where(EVIDENCE.c.media_id == each.media_id)
            ).all()
        }
        if not author or any(author in domain for domain in authors):
            accused, touched = bool(authors & evidence), any(known for _, known in media)
            order = (not (accused and touched), not accused, min(each.flagged_at for each, _ in media), tenant, cluster)
            found.append((order, tenant, sorted(each.sha256 for each, _ in media)))
    return [row[1:] for row in sorted(found)]


@pytest.mark.parametrize("seed", range(4))
def test_the_queue_and_its_count_are_what_looking_at_each_image_gives(database_url, seed):
    chance = random.Random(seed)
    with open_store(database_url) as store:
        write_at_random(store, chance)
        compare(store)


def compare(store):
    with store.reading() as connection:
        for who, verified, evidence, author in (
            ("", (), (), ""),
            ("", (LIST,), (), ""),
            ("alice", (LIST,), ("bad.example",), ""),
            ("bob", (), ("bad.example", "calm.example"), ""),
            ("dora", (LIST,), ("bad.example",), "l.ex"),
        ):
            options = {"verified_lists": verified, "evidence": evidence, "author": author}
            wanted = rows_one_by_one(connection, who, verified=set(verified), evidence=set(evidence), author=author)
            rows, total = read_waiting(connection, who, **options)
            assert [(row.tenant, [sha256 for _, sha256 in row.media]) for row in rows] == wanted
            assert total == len(wanted) > 5
            assert read_waiting(connection, who, start=3, size=2, **options) == (rows[3:5], total)
            if not who:
                assert count_waiting(connection, verified_lists=verified) == total
