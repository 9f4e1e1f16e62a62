"""Looking at posts beside whatever else the process does, which it never disturbs."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import structlog

from federation_audit.presence.looker import Looker
from federation_audit.presence.settings import PresenceSettings
from federation_audit.store.engine import Store
from federation_audit.store.errors import StoreError
from schemas.clock import now_ms

log = structlog.get_logger("federation_audit.presence")

_RETRY_S = 5.0
_RETRY_MOST_S = 600.0


async def run_presence(
    settings: PresenceSettings,
    store: Store,
    *,
    verified_lists: Collection[str] = (),
    now: Callable[[], int] = now_ms,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Look at posts until cancelled. Returns at once where that is off."""
    if not settings.enabled:
        return
    looker = Looker(settings, store, verified_lists=verified_lists, now=now, tls=tls)
    log.info("presence_ready", between_s=settings.between_s)
    retry_s = _RETRY_S
    while True:
        try:
            wait_s = await looker.turn()
            retry_s = _RETRY_S
        except StoreError as error:
            log.warning("presence_waits_for_the_store", because=str(error))
            wait_s, retry_s = retry_s, min(2 * retry_s, _RETRY_MOST_S)
        except Exception:  # the edge of what we do: the recorder beside us goes on whatever happens here
            log.exception("presence_failed")
            wait_s, retry_s = retry_s, min(2 * retry_s, _RETRY_MOST_S)
        await asyncio.sleep(wait_s)


@asynccontextmanager
async def watching(settings: PresenceSettings, store: Store, verified_lists: Collection[str]) -> AsyncIterator[None]:
    """Look at posts while this context lasts."""
    task = asyncio.create_task(run_presence(settings, store, verified_lists=verified_lists))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
