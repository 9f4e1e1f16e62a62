"""What the topic sweeps holds of one sweep, read once and then written: how far it is, and what it found.

Kafka keeps it, as a sweep needs a gateway and that needs Kafka: nothing else has to be there, nothing is lost by
kill -9, and another machine can go on.
"""

import hashlib
import os
import socket

from schemas.broker import BrokerSettings, Producer, Received, check_topics, read_history
from schemas.clock import now_ms
from schemas.messages import SweepCheckpoint, SweepFound, SweepMode
from schemas.topics import SWEEPS

WORKER = f"{socket.gethostname()}-{os.getpid()}"


def sweep_id(identity: str, tenant: str, mode: SweepMode, quarantine: str | None) -> str:
    """16 hexadecimal digits, the same for the same source, judged for the same tenant, with the same consequences."""
    about = "\n".join((identity, tenant, mode, quarantine or ""))
    return hashlib.sha256(about.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def object_id(key: str) -> str:
    """32 hexadecimal digits that stand for an object of one sweep."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]


class Checkpoints:
    """One sweep's records. `standing` is the newest checkpoint, None for a new sweep; `found` by object id."""

    def __init__(self, sweep: str) -> None:
        self.sweep = sweep
        self.standing: SweepCheckpoint | None = None
        self.found: dict[str, SweepFound] = {}
        self._producer: Producer | None = None

    def observe(self, received: Received) -> None:
        """Take in one record of the topic."""
        sweep, _, object_ = (received.key or b"").decode("ascii", "replace").partition("/")
        if sweep != self.sweep:
            return
        match received.message:
            case SweepCheckpoint() as checkpoint:
                self.standing = checkpoint
            case SweepFound() as found:
                self.found[found.object_id] = found
            case None if received.fault is None and object_:
                self.found.pop(object_, None)
            case None if received.fault is None:
                self.standing = None

    def write_with(self, producer: Producer) -> None:
        """Write by `producer` from now on."""
        self._producer = producer

    async def note(self, checkpoint: SweepCheckpoint) -> None:
        """Publish how far it is."""
        self.standing = checkpoint.model_copy(update={"changed_at": now_ms(), "worker": WORKER})
        await self._publish(self.standing, self.sweep)

    async def note_found(self, found: SweepFound) -> None:
        """Publish what was found of one object, in place of what was."""
        self.found[found.object_id] = found
        await self._publish(found, f"{self.sweep}/{found.object_id}")

    async def forget_found(self, object_: str) -> None:
        """Take back what was found of one object, where something was."""
        if self.found.pop(object_, None) is not None:
            await self._publish(None, f"{self.sweep}/{object_}")

    async def begin_anew(self) -> None:
        """Forget all there is of this sweep."""
        for object_ in list(self.found):
            await self.forget_found(object_)
        self.standing = None
        await self._publish(None, self.sweep)

    async def _publish(self, message: SweepCheckpoint | SweepFound | None, key: str) -> None:
        assert self._producer is not None, "write_with() comes first"
        await self._producer.publish(SWEEPS, message, key=key.encode("ascii"))


async def read_checkpoints(broker: BrokerSettings, sweep: str) -> Checkpoints:
    """What stands in Kafka of this sweep. Raises a `BrokerError`."""
    await check_topics(broker, (SWEEPS,))
    checkpoints = Checkpoints(sweep)
    await read_history(broker, (SWEEPS,), since_ms=0, on_record=checkpoints.observe, client_id="fediwarden-sweep")
    return checkpoints
