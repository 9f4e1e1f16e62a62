import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.overrides.memory import NO_LOOKS, Overrides, explain, looks_of
from schemas.broker import Received
from schemas.codec import SchemaUnknown
from schemas.messages import EVERY_TENANT, OverrideEffect, OverrideKind, OverrideSet
from schemas.topics import OVERRIDES

ALLOW, DENY = OverrideEffect.ALLOW, OverrideEffect.DENY
SHA = b"\x01" * 32
LOOK = bytes(range(32))


def flipped(look: bytes, bits: int) -> bytes:
    """`look` with so many bits changed."""
    return (int.from_bytes(look) ^ (1 << bits) - 1).to_bytes(32)


def override(**fields: object) -> OverrideSet:
    given_: dict[str, object] = {"effect": ALLOW, "kind": OverrideKind.SHA256, "hash": SHA, "set_at": 1, **fields}
    return OverrideSet.model_validate({"set_by": "alice", "reason": "a painting", **given_})


def by_look(**fields: object) -> OverrideSet:
    return override(**{"kind": OverrideKind.PDQ, "hash": LOOK, "distance": 31, **fields})


def record(message: OverrideSet | None, *, key: str = "", offset: int = 0) -> Received:
    name = key or (message.override_id if message is not None else "")
    return Received(OVERRIDES, 0, offset, 0, name.encode(), message, None, 1)


def memory(*overrides: OverrideSet, now: int = 1000) -> Overrides:
    made = Overrides(clock=lambda: now)
    for each in overrides:
        made.observe(record(each))
    return made


def seen(*frames: bytes, quality: int = 100):
    return looks_of((frame, quality) for frame in frames)


def test_bytes_are_met_by_every_tenant_or_by_the_one_that_is_named():
    everyone, one = memory(override()), memory(override(tenant="a"))
    assert everyone.of_bytes("a", SHA) is not None
    assert everyone.of_bytes("b", SHA) is not None
    assert one.of_bytes("a", SHA) is not None
    assert one.of_bytes("b", SHA) is None
    assert everyone.of_bytes("a", b"\x02" * 32) is None


def test_a_tenants_own_word_goes_before_that_for_all_and_returns_to_it_when_it_expires():
    ours, all_ = override(tenant="a", until=2000), override(effect=DENY)
    assert memory(ours, all_).of_bytes("a", SHA) == ours
    assert memory(ours, all_, now=2000).of_bytes("a", SHA) == all_


def test_a_look_is_met_up_to_its_distance_and_no_further():
    of = memory(by_look())
    assert of.of_looks("a", seen(flipped(LOOK, 31))) is not None
    assert of.of_looks("a", seen(flipped(LOOK, 32))) is None


def test_a_flat_picture_meets_nothing_by_its_look():
    assert memory(by_look()).of_looks("a", seen(LOOK, quality=49)) is None


def test_one_denied_frame_denies_a_film_and_one_allowed_frame_does_not_allow_it():
    other = flipped(LOOK, 200)
    assert memory(by_look(effect=DENY)).of_looks("a", seen(other, LOOK, other)) is not None
    assert memory(by_look()).of_looks("a", seen(other, LOOK)) is None
    assert memory(by_look()).of_looks("a", seen(LOOK, flipped(LOOK, 3))) is not None
    flat_beside = looks_of([(LOOK, 100), (other, 10)])
    assert memory(by_look()).of_looks("a", flat_beside) is None, "what cannot be compared may be anything"
    assert memory(by_look(effect=DENY)).of_looks("a", flat_beside) is not None


def test_of_two_looks_the_nearest_counts_and_the_latest_where_they_are_as_near():
    near, far = by_look(hash=flipped(LOOK, 2)), by_look(effect=DENY, hash=flipped(LOOK, 9))
    assert memory(near, far).of_looks("a", seen(LOOK)) == near
    first, second = by_look(hash=flipped(LOOK, 2)), by_look(effect=DENY, hash=flipped(LOOK, 2), tenant="a", set_at=5)
    assert memory(first, second).of_looks("a", seen(LOOK)) == second
    up, down = by_look(hash=flipped(LOOK, 1)), by_look(effect=DENY, set_at=2, hash=bytes([LOOK[0] ^ 128]) + LOOK[1:])
    assert memory(up, down).of_looks("a", seen(LOOK)) == down


def test_bytes_go_before_looks():
    exact, alike = override(), by_look(effect=DENY)
    assert memory(exact, alike).of_image("a", SHA, seen(LOOK)) == exact
    assert memory(exact, alike).of_image("a", b"\x02" * 32, seen(LOOK)) == alike
    assert memory(exact, alike).of_image("a", b"\x02" * 32, NO_LOOKS) is None


def test_a_later_word_on_the_same_hash_takes_the_earlier_ones_place_and_a_tombstone_ends_it():
    first, second = by_look(), by_look(effect=DENY, set_at=7)
    assert first.override_id == second.override_id
    of = memory(first, second)
    assert of.standing() == [second]
    of.observe(record(None, key=first.override_id))
    assert (len(of), of.of_looks("a", seen(LOOK)), of.get(first.override_id)) == (0, None, None)
    of.observe(record(None, key="never heard of"))


@pytest.mark.parametrize(
    "odd",
    [
        replace(record(None), fault=SchemaUnknown("from the future")),
        record(override(), key="the id of another"),
        replace(record(override()), key=b"\xff\xfe"),
        replace(record(override()), key=None),
    ],
)
def test_what_is_no_override_is_passed_over(odd: Received):
    of = memory(by_look())
    of.observe(odd)
    assert of.standing() == [by_look()]


def test_whoever_waits_for_a_record_hears_of_it_and_not_before():
    async def scenario() -> None:
        of = Overrides()
        of.observe(record(override(), offset=3))
        assert await of.reached(3, within_s=0)
        waiting = asyncio.create_task(of.reached(5, within_s=30))
        await asyncio.sleep(0)
        of.observe(record(override(), offset=4))
        await asyncio.sleep(0)
        assert not waiting.done()
        of.observe(record(override(), offset=5))
        assert await waiting
        assert not await of.reached(6, within_s=0.01)

    asyncio.run(scenario())


def test_an_override_says_what_whose_and_why():
    assert explain(by_look()) == f"allow by look (within 31 bits), {by_look().override_id}: alice: a painting"


TIED = "as near, as late: the rules do not say"
HASHES = [LOOK, flipped(LOOK, 1), flipped(LOOK, 20), flipped(LOOK, 40), flipped(LOOK, 200)]
words = st.builds(
    lambda effect, kind, hash_, distance, tenant, set_at, until: override(
        effect=effect,
        kind=kind,
        hash=hash_,
        distance=distance if kind is OverrideKind.PDQ else 0,
        tenant=tenant,
        set_at=set_at,
        until=until,
    ),
    st.sampled_from(OverrideEffect),
    st.sampled_from(OverrideKind),
    st.sampled_from(HASHES),
    st.sampled_from([0, 10, 31, 64]),
    st.sampled_from([EVERY_TENANT, "a", "b"]),
    st.integers(0, 3),
    st.sampled_from([None, 5, 15]),
)
steps = st.lists(st.one_of(words, words.map(lambda each: each.override_id), st.integers(0, 20)), max_size=30)


def said_by_hand(standing: dict[str, OverrideSet], now: int, tenant: str, sha256: bytes, frames) -> str | None:
    """The rules, each as it is written down."""
    valid = [each for each in standing.values() if each.until is None or now < each.until]
    for whose in (tenant, EVERY_TENANT):
        for each in valid:
            if each.kind == "sha256" and each.hash == sha256 and each.tenant == whose:
                return each.effect
    effects = []
    for frame, quality in frames:
        met = []
        for each in valid:
            apart = (int.from_bytes(each.hash) ^ int.from_bytes(frame)).bit_count()
            if (
                each.kind == "pdq"
                and each.tenant in (tenant, EVERY_TENANT)
                and apart <= each.distance
                and quality >= 50
            ):
                met.append(((each.tenant != tenant, apart, -each.set_at), each.effect))
        best = min((rank for rank, _ in met), default=None)
        effects.append({effect for rank, effect in met if rank == best})
    if any(each == {DENY} for each in effects):
        return DENY
    if any(DENY in each for each in effects):
        return TIED
    return ALLOW if effects and all(effects) else None


@settings(deadline=None)
@given(
    steps,
    st.sampled_from(["a", "b"]),
    st.sampled_from(HASHES),
    st.lists(st.tuples(st.sampled_from(HASHES), st.sampled_from([10, 50, 100])), max_size=4),
)
def test_what_holds_is_what_the_rules_say(steps, tenant, sha256, frames):
    now = [0]
    of, standing = Overrides(clock=lambda: now[0]), {}
    for step in steps:
        match step:
            case OverrideSet():
                of.observe(record(step))
                standing[step.override_id] = step
            case str():
                of.observe(record(None, key=step))
                standing.pop(step, None)
            case int():
                now[0] = step
        found = of.of_image(tenant, sha256, looks_of(frames))
        expected = said_by_hand(standing, now[0], tenant, sha256, frames)
        if expected != TIED:
            assert (None if found is None else found.effect) == expected
    assert len(of) == len(standing)
