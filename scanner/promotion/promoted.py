"""What is promoted, by the topic models.promoted: the newest record of a group counts, a tombstone takes it back."""

from collections.abc import Mapping

import structlog

from schemas.broker import BrokerSettings, Received, check_topics, read_history
from schemas.messages import ModelsPromoted
from schemas.topics import MODELS_PROMOTED

log = structlog.get_logger("scanner.promotion")


class Promoted:
    """The promotion in force of each group. `observe` is handed each record of the topic, from its beginning."""

    def __init__(self) -> None:
        self._by_group: dict[str, ModelsPromoted] = {}

    def observe(self, received: Received) -> None:
        """Take in one record; one that cannot be read is logged, and what stood before it stays in force."""
        message, key = received.message, (received.key or b"").decode("utf-8", "replace")
        if isinstance(message, ModelsPromoted) and message.group == key:
            self._by_group[key] = message
        elif message is None and received.fault is None:
            self._by_group.pop(key, None)
        else:
            fault = str(received.fault or "a record whose key is not its group")
            log.warning("promotion_unreadable", offset=received.offset, fault=fault)

    def of(self, group: str) -> ModelsPromoted | None:
        """What is promoted for a group; None where the settings choose its models."""
        return self._by_group.get(group)

    @property
    def all(self) -> Mapping[str, ModelsPromoted]:
        """Every promotion in force, by group."""
        return self._by_group


async def read_promoted(broker: BrokerSettings, *, client_id: str) -> Promoted:
    """What is promoted now. Raises a `schemas.broker.BrokerError`, `TopicsNotReady` where the topic is not there."""
    await check_topics(broker, (MODELS_PROMOTED,))
    promoted = Promoted()
    await read_history(broker, (MODELS_PROMOTED,), since_ms=0, on_record=promoted.observe, client_id=client_id)
    return promoted
