"""Ending aiokafka's clients, whatever state they are in."""

import asyncio
from typing import Protocol

import structlog

log = structlog.get_logger("schemas.broker")

_CLOSING: set[asyncio.Task[None]] = set()


class Client(Protocol):
    """What aiokafka's producer and consumer have in common here."""

    async def stop(self) -> None:
        """Flush what can be, and disconnect."""


async def close_client(client: Client, within_s: float) -> None:
    """Stop `client`; returns after `within_s` seconds at the latest and raises nothing.

    Without a broker aiokafka's stop can take long, and may end in the CancelledError of one of its own tasks. Cancelled
    half way it would leave tasks and sockets behind for good: it is left to end by itself.
    """
    closing = asyncio.create_task(client.stop())
    _CLOSING.add(closing)
    closing.add_done_callback(_note_closed)
    await asyncio.wait((closing,), timeout=within_s)


def _note_closed(closing: asyncio.Task[None]) -> None:
    _CLOSING.discard(closing)
    if not closing.cancelled() and (error := closing.exception()) is not None:
        log.info("a Kafka client did not close well", error=repr(error))
