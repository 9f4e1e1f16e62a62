"""How many images each tenant may post: a token bucket for each, so that one cannot take everybody's place."""

import asyncio
from collections.abc import Callable

from gateway.tenants import Tenant


class TokenBucket:
    """Lets `rate` a second through in the long run, and `burst` at once after a rest. `clock` is in seconds."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"rate must be positive and burst at least 1, not {rate} and {burst}")
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._filled_at = clock()

    def take(self) -> float:
        """Take a token: 0.0. Where there is none, how many seconds until there is one."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate


class Rates:
    """The buckets of those tenants that have a `rate_limit`. Needs a running event loop."""

    def __init__(self) -> None:
        self._buckets: dict[str, TokenBucket] = {}

    def take(self, tenant: Tenant) -> float:
        """As `TokenBucket.take`, of this tenant's bucket; 0.0 where it has no limit."""
        rate = tenant.settings.rate_limit
        if rate is None:
            return 0.0
        bucket = self._buckets.get(tenant.name)
        if bucket is None:
            bucket = TokenBucket(rate, tenant.settings.rate_burst, asyncio.get_running_loop().time)
            self._buckets[tenant.name] = bucket
        return bucket.take()
