import asyncio

import pytest

from gateway.enforcement.pace import Pace, pause_after
from gateway.enforcement.pict_rs import PictRsError, PictRsUnreachable

MOST_S = 0.01


class Asked:
    """Something to call: counts its calls, and how many of them were under way at once."""

    def __init__(self) -> None:
        self.calls = 0
        self.under_way = 0
        self.most_under_way = 0
        self.fails = False

    async def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if self.fails:
            raise PictRsUnreachable("away")
        return number


async def call_all(pace: Pace, asked: Asked, count: int) -> list[object]:
    return await asyncio.gather(*(pace.call(asked) for _ in range(count)), return_exceptions=True)


@pytest.mark.parametrize("failures", [1, 2, 5, 8, 1000])
def test_pauses_double_up_to_their_ceiling_and_never_fall_below_half_of_it(failures: int) -> None:
    full = min(60.0, 0.5 * 2 ** min(failures - 1, 20))
    assert all(full / 2 <= pause_after(failures, 60.0) <= full for _ in range(100))


def test_as_many_are_asked_at_a_time_as_is_allowed_and_no_more() -> None:
    async def scenario() -> None:
        asked = Asked()
        results = await call_all(Pace("a", 3, most_s=MOST_S), asked, 20)
        assert sorted(results) == list(range(1, 21))  # type: ignore[type-var]
        assert asked.most_under_way == 3

    asyncio.run(scenario())


def test_what_fails_is_asked_one_at_a_time_until_it_answers() -> None:
    async def scenario() -> None:
        pace, asked = Pace("a", 4, most_s=MOST_S), Asked()
        asked.fails = True
        assert all(isinstance(each, PictRsError) for each in await call_all(pace, asked, 4))
        assert asked.most_under_way == 4  # nobody knew yet
        asked.most_under_way = 0
        await call_all(pace, asked, 10)
        assert asked.most_under_way == 1
        asked.fails = False
        asked.most_under_way = 0
        await pace.call(asked)
        await call_all(pace, asked, 10)
        assert asked.most_under_way == 4

    asyncio.run(scenario())


def test_calls_that_fail_together_count_as_one_failure() -> None:
    async def scenario() -> None:
        pace, asked = Pace("a", 8, most_s=1000.0), Asked()
        asked.fails = True
        await call_all(pace, asked, 8)
        assert pace._failures == 1

    asyncio.run(scenario())


def test_a_file_that_alone_makes_it_fail_does_not_keep_the_others_from_their_turn() -> None:
    async def scenario() -> None:
        pace, good, bad = Pace("a", 2, most_s=MOST_S), Asked(), Asked()
        bad.fails = True
        answered = asyncio.Event()

        async def insist() -> None:
            while not answered.is_set():
                with pytest.raises(PictRsUnreachable):
                    await pace.call(bad)

        insisting = [asyncio.create_task(insist()) for _ in range(2)]
        assert sorted(await call_all(pace, good, 30)) == list(range(1, 31))  # type: ignore[type-var]
        answered.set()
        await asyncio.gather(*insisting)

    asyncio.run(scenario())
