"""Taking an actor's traces out, by a message that every rebuild reads as well."""

import asyncio
import os
from collections.abc import Sequence

from federation_audit.store.engine import Store
from federation_audit.store.queries import forgotten_at
from schemas.broker import BrokerSettings, Producer
from schemas.clock import now_ms
from schemas.messages import ActorForgotten
from schemas.pseudonyms import Pseudonym
from schemas.topics import ORIGINS

_LOOK_EVERY_S = 0.2


async def forget(pseudonyms: Sequence[Pseudonym], broker: BrokerSettings, store: Store, *, wait_s: float) -> bool:
    """Publish that the actor with these `pseudonyms`, one for each key, is to be forgotten.

    Whether the store shows it within `wait_s` seconds: a process must be recording. Raises a
    `schemas.broker.BrokerError` or `StoreError`.
    """
    at = now_ms()
    async with Producer(broker, client_id=f"fediwarden-audit-forget-{os.getpid()}") as producer:
        for each in pseudonyms:
            message = ActorForgotten(pseudonym=each.value, key_id=each.key_id, forgotten_at=at)
            await producer.publish(ORIGINS, message, key=each.value)
    give_up_at = asyncio.get_running_loop().time() + wait_s
    while not (done := await asyncio.to_thread(_is_done, store, pseudonyms, at)):
        if asyncio.get_running_loop().time() >= give_up_at:
            break
        await asyncio.sleep(_LOOK_EVERY_S)
    return done


def _is_done(store: Store, pseudonyms: Sequence[Pseudonym], at: int) -> bool:
    with store.reading() as connection:
        return all((forgotten_at(connection, each.key_id, each.value) or 0) >= at for each in pseudonyms)
