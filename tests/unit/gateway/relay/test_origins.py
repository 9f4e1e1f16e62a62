"""What was published lately, and what waits for Kafka."""

import asyncio

from gateway.relay.metrics import RelayMetrics
from gateway.relay.origins import Origins, Recent
from schemas.messages import OriginMethod, OriginObserved, Place


def test_a_thing_is_news_once_in_its_time() -> None:
    now = 0.0
    recent = Recent(most=10, hold_s=60.0, clock=lambda: now)
    assert recent.note("a")
    assert not recent.note("a")
    assert recent.note("b")
    now = 59.9
    assert not recent.note("a")
    now = 60.0
    assert "a" not in recent
    assert recent.note("a")


def test_what_is_forgotten_is_news_again() -> None:
    recent = Recent(most=10, hold_s=60.0)
    recent.note("a")
    recent.forget("a")
    recent.forget("never noted")
    assert recent.note("a")


def test_beyond_the_bound_the_oldest_goes() -> None:
    recent = Recent(most=2, hold_s=60.0)
    assert all(recent.note(each) for each in "abc")
    assert "a" not in recent
    assert "b" in recent
    assert "c" in recent


def test_nothing_is_taken_beyond_the_bound_and_what_is_dropped_is_counted() -> None:
    async def offer() -> None:
        metrics = RelayMetrics()
        origins = Origins(most=2, metrics=metrics)
        each = OriginObserved(
            tenant="default", alias="a.png", place=Place.UPLOAD, method=OriginMethod.RELAY, observed_at=1
        )
        assert [origins.offer(each) for _ in range(4)] == [True, True, False, False]
        assert origins.waiting == 2
        assert await origins.flush(0.01) == 2
        assert metrics.registry.get_sample_value("fediwarden_relay_origins_dropped_total") == 2

    asyncio.run(offer())
