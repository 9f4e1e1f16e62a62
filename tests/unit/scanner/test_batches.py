"""The micro-batcher: nothing lost, doubled or reordered, batches bounded, no wait for nothing."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.batches import Batcher

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 9)),
        st.tuples(st.just("withdraw"), st.just(0)),
        st.tuples(st.just("yield"), st.integers(0, 3)),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=150)
@given(steps=STEPS, max_weight=st.integers(1, 8), max_wait_ms=st.sampled_from([0.0, 0.5, 50.0]))
def test_every_item_comes_out_once_in_order_and_in_bounded_batches(
    steps: list[tuple[str, int]], max_weight: int, max_wait_ms: float
) -> None:
    async def run() -> list[list[tuple[int, int]]]:
        batcher: Batcher[tuple[int, int]] = Batcher(
            max_weight=max_weight, max_wait_s=max_wait_ms / 1000, weigh=lambda item: item[1]
        )
        batches = []

        async def consume() -> None:
            while batch := await batcher.take():
                batches.append(batch)

        consumer = asyncio.create_task(consume())
        for number, (step, value) in enumerate(steps):
            if step == "yield":
                for _ in range(value):
                    await asyncio.sleep(0)
                continue
            batcher.expect()
            if step == "put":
                batcher.put((number, value))
            else:
                batcher.withdraw()
        batcher.close()
        await consumer
        return batches

    batches = asyncio.run(run())
    handed_in = [(number, value) for number, (step, value) in enumerate(steps) if step == "put"]
    assert [item for batch in batches for item in batch] == handed_in
    assert all(len(batch) == 1 or sum(weight for _, weight in batch) <= max_weight for batch in batches)


def test_an_item_is_given_out_at_once_when_nothing_else_is_announced() -> None:
    async def run() -> list[str]:
        batcher: Batcher[str] = Batcher(max_weight=8, max_wait_s=3600.0)
        batcher.expect()
        batcher.put("only")
        return await batcher.take()

    assert asyncio.run(run()) == ["only"]


def test_a_batch_waits_for_what_is_announced_and_takes_it_along() -> None:
    async def run() -> list[str]:
        batcher: Batcher[str] = Batcher(max_weight=8, max_wait_s=3600.0)
        batcher.expect()
        batcher.expect()
        batcher.put("first")
        taking = asyncio.create_task(batcher.take())
        await asyncio.sleep(0)
        assert not taking.done()
        batcher.put("second")
        return await taking

    assert asyncio.run(run()) == ["first", "second"]


def test_a_batch_goes_without_what_does_not_come_in_time() -> None:
    async def run() -> list[str]:
        batcher: Batcher[str] = Batcher(max_weight=8, max_wait_s=0.001)
        batcher.expect()
        batcher.expect()
        batcher.put("first")
        return await batcher.take()

    assert asyncio.run(run()) == ["first"]


def test_a_batch_stops_waiting_when_the_announced_item_is_withdrawn() -> None:
    async def run() -> list[str]:
        batcher: Batcher[str] = Batcher(max_weight=8, max_wait_s=3600.0)
        batcher.expect()
        batcher.expect()
        batcher.put("first")
        taking = asyncio.create_task(batcher.take())
        await asyncio.sleep(0)
        batcher.withdraw()
        return await taking

    assert asyncio.run(run()) == ["first"]


def test_a_full_batch_does_not_wait() -> None:
    async def run() -> list[int]:
        batcher: Batcher[int] = Batcher(max_weight=2, max_wait_s=3600.0)
        for _ in range(4):
            batcher.expect()
        for number in range(3):
            batcher.put(number)
        return await batcher.take()

    assert asyncio.run(run()) == [0, 1]


def test_an_item_that_nobody_announced_is_refused() -> None:
    async def run() -> None:
        Batcher[int](max_weight=2, max_wait_s=0.0).put(1)

    with pytest.raises(RuntimeError, match="nobody announced"):
        asyncio.run(run())


def test_what_is_put_behind_waits_for_all_that_is_there_or_announced() -> None:
    async def run() -> list[list[str]]:
        batcher: Batcher[str] = Batcher(max_weight=2, max_wait_s=3600.0)
        for item in ("b1", "b2", "b3"):
            batcher.put_behind(item)
        for item in ("a1", "a2", "a3"):
            batcher.expect()
            batcher.put(item)
        batcher.expect()
        taking = asyncio.create_task(batcher.take())
        batches = [await taking]
        third = asyncio.create_task(batcher.take())
        await asyncio.sleep(0)
        assert not third.done()  # "a3" may have company: that is announced
        batcher.withdraw()
        batches.append(await third)
        batcher.expect()
        behind = asyncio.create_task(batcher.take())
        await asyncio.sleep(0.01)
        assert not behind.done()  # an announced item is waited for, whatever is behind
        batcher.put("a4")
        batches.append(await behind)
        batches += [await batcher.take(), await batcher.take()]
        batcher.close()
        assert await batcher.take() == []
        return batches

    assert asyncio.run(run()) == [["a1", "a2"], ["a3"], ["a4"], ["b1", "b2"], ["b3"]]


def test_what_is_behind_when_it_closes_is_given_out() -> None:
    async def run() -> list[list[str]]:
        batcher: Batcher[str] = Batcher(max_weight=8, max_wait_s=3600.0)
        batcher.put_behind("b")
        batcher.close()
        return [await batcher.take(), await batcher.take()]

    assert asyncio.run(run()) == [["b"], []]
