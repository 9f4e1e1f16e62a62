"""A tenant's rate: the bucket by a clock of ours, and what a real gateway answers beyond it."""

import asyncio
import math
from contextlib import ExitStack

import httpx
import pytest
from pydantic import SecretStr

from gateway.rates import TokenBucket
from gateway.refusals import Refusal, RefusalCode
from gateway.service import Gateway
from gateway.settings import TenantSettings
from gateway.tenants import Tenant
from tests import pictures
from tests.gateways import running_gateway


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(2.0, 3, clock)
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    clock.now += 0.25
    assert bucket.take() == pytest.approx(0.25)
    clock.now += 0.25
    assert bucket.take() == 0.0
    assert bucket.take() == pytest.approx(0.5)


def test_a_rest_fills_a_bucket_to_its_burst_and_no_further() -> None:
    clock = Clock()
    bucket = TokenBucket(100.0, 2, clock)
    clock.now += 3600
    assert [bucket.take() > 0 for _ in range(3)] == [False, False, True]


def test_over_a_long_time_as_many_get_through_as_the_rate_says() -> None:
    clock = Clock()
    bucket = TokenBucket(5.0, 10, clock)
    through = 0
    for _ in range(10_000):
        clock.now += 0.01
        through += not bucket.take()
    assert through == pytest.approx(100 * 5 + 10, abs=1)


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_a_bucket_that_lets_nothing_through_is_refused(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="rate must be positive"):
        TokenBucket(rate, burst, Clock())


def test_beyond_its_rate_a_tenant_is_told_to_wait_and_pict_rs_is_answered_by_policy() -> None:
    tenants = {
        "open": TenantSettings(key=SecretStr("open-open-open"), rate_limit=0.001, rate_burst=1),
        "shut": TenantSettings(key=SecretStr("shut-shut-shut"), rate_limit=0.001, rate_burst=1, on_timeout="reject"),
        "free": TenantSettings(key=SecretStr("free-free-free")),
    }
    with running_gateway(tenants=tenants, deadline_ms=500) as running, httpx.Client(base_url=running.url) as client:

        def pict_rs(name: str, seed: int) -> httpx.Response:
            path = f"/api/v1/scan/{name}-{name}-{name}"
            return client.post(path, content=pictures.make("png", seed=seed), timeout=20)

        def program(name: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {name}-{name}-{name}"}
            return client.post("/v1/scans", content=pictures.make("png", seed=9), headers=headers, timeout=20)

        assert [pict_rs(name, 1).status_code for name in tenants] == [200, 406, 200]

        told = program("open")
        assert (told.status_code, told.json()["error"]["code"]) == (429, "rate_limited")
        assert 900 <= int(told.headers["Retry-After"]) <= 1000
        assert "tenants.open.rate_limit" in told.json()["error"]["remedy"]

        deferred = pict_rs("open", 2)  # on the way to the backlog, which is the spool while Kafka is away
        assert deferred.status_code == 200
        assert deferred.json()["answered_by"] in ("spooled", "deadline")
        shut = pict_rs("shut", 2)
        assert (shut.status_code, shut.json()["error"]["code"]) == (429, "rate_limited")

        assert {program("free").status_code for _ in range(5)} == {200}  # nobody else's business
        counted = client.get("/metrics").text
        assert 'fediwarden_gateway_over_rate_total{outcome="deferred",tenant="open"} 1.0' in counted
        assert 'fediwarden_gateway_over_rate_total{outcome="refused",tenant="open"} 1.0' in counted
        assert 'fediwarden_gateway_over_rate_total{outcome="refused",tenant="shut"} 1.0' in counted
        assert 'fediwarden_gateway_refusals_total{code="rate_limited"} 2.0' in counted


def test_what_is_over_its_rate_leaves_others_half_of_the_looks() -> None:
    many = Tenant("many", TenantSettings(key=SecretStr("many-many-many"), rate_limit=0.001, rate_burst=1))
    free = Tenant("free", TenantSettings(key=SecretStr("free-free-free")))

    async def crowd(gateway: Gateway) -> tuple[int, RefusalCode]:
        """How many of `many` are held at a time, the first of them within its rate; and what the next is told."""
        with ExitStack() as held:
            places = 0
            try:
                while True:
                    held.enter_context(gateway._scans.admit(many, may_defer=True))
                    places += 1
            except Refusal as refusal:
                held.enter_context(gateway._scans.admit(free, may_defer=True))
                return places, refusal.code

    with running_gateway(tenants={"many": many.settings, "free": free.settings}, max_in_flight=64) as running:
        gateway = running.gateway
        crowded = asyncio.run_coroutine_threadsafe(crowd(gateway), running.loop).result(20)
        half = max(1, math.ceil(gateway._flights.looks_at_once / 2))
        assert crowded == (1 + half, RefusalCode.FULL)
        assert 1 + half < 64
