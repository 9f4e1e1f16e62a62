"""The scanners that could look at frames again: what each announced in the last minute."""

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from fediwarden.rescan.errors import RescanInvalid
from fediwarden.rescan.jobs import CLIENT_ID
from scanner.models.registry import load_registry
from schemas.broker import BrokerSettings, Received, Tail
from schemas.messages import ScannerAnnounced
from schemas.topics import SCANNERS

_ANNOUNCED_S = 60.0


class Eyes:
    """The models of every scanner that takes part in rescans, by scanner. `observe` is handed the topic's records."""

    def __init__(self) -> None:
        self._models: dict[str, Mapping[str, str]] = {}

    def observe(self, received: Received) -> None:
        """Take in one record of the topic scanners."""
        announced = received.message
        if not isinstance(announced, ScannerAnnounced):
            return
        if announced.leaving or not announced.policies:  # a shadow has no policies, and never takes part
            self._models.pop(announced.scanner, None)
        else:
            self._models[announced.scanner] = announced.models

    def models_for(self, names: Collection[str], *, registry: Path | None, field: str) -> dict[str, str]:
        """Name and id of all the models of those scanners that run `names`: a scanner judges with all it has.

        Where scanners differ, what most of them run. Raises `RescanInvalid`: a model is unknown, or no scanner runs it.
        """
        known = load_registry(registry).names
        for name in names:
            if name not in known:
                raise RescanInvalid(field, f"there is no model {name!r}", remedy=f"the models are: {', '.join(known)}")
        sets = Counter(tuple(sorted(models.items())) for models in self._models.values() if models.keys() >= set(names))
        if not sets:
            missing = ", ".join(sorted(names))
            raise RescanInvalid(
                field,
                f"{missing} has to see the frames, and no scanner runs it",
                remedy=f"add {missing} to scanner.models and start a scanner",
            )
        most = max(sets.values())
        return dict(max(each for each, count in sets.items() if count == most))


async def read_eyes(broker: BrokerSettings) -> Eyes:
    """Who announced what in the last minute. Raises a `schemas.broker.BrokerError`."""
    eyes = Eyes()
    async with Tail(broker, (SCANNERS,), since_s=_ANNOUNCED_S, on_record=eyes.observe, client_id=CLIENT_ID) as tail:
        await tail.wait_positioned()
    return eyes
