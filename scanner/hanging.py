"""Telling a call in a thread that hangs from one that something kept from running."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

_LOOKS = 10


async def comes_back(
    call: asyncio.Future[Any], *, within_s: float, has_begun: Callable[[], bool] = lambda: True
) -> bool:
    """Whether `call` is done, or cancelled, before it has run for `within_s` seconds (for ever, where that is inf).

    Time before it `has_begun` does not count, nor does time that this process itself was stopped: it looks a few times.
    """
    timeout = None if math.isinf(within_s) else within_s / _LOOKS
    looks = 0
    while looks < _LOOKS:
        await asyncio.wait((call,), timeout=timeout)
        if call.done():
            return True
        looks += has_begun()
    return False
