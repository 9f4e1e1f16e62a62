"""Round the scanners that fell silent: which partition an image goes to, and which images are sent a second time."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from schemas.topics import IMAGES

log = structlog.get_logger("gateway.steering")

_PATIENCE_LEAST_S = 0.4
_PATIENCE_SHARE = 0.4
_PATIENCE_LATENCIES = 4.0
"""Patience is so many times the recent latency, but not more than a part of the deadline: a second copy needs time."""
_LATENCY_WEIGHT = 0.05

_OVERTAKEN = 2.0
"""So many patiences (here without the deadline's bound): images in one pair of hands overtake each other by less."""

_PROBE_EVERY_S = 1.0

_COPIES_MOST = 3
_HEDGES_ALWAYS = 20.0
_HEDGES_SHARE = 0.15
_HEDGES_OVER_S = 10.0
"""Further copies are a share of the images of about the last ten seconds, and a few: slowness cannot feed on them."""


@dataclass(slots=True, eq=False)
class _Image:
    """`due` is when the next copy may be sent, if scanners are silent wherever there is one."""

    first_sent: float
    due: float = 0.0
    partitions: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Partition:
    """`owner` is the scanner whose verdicts come from here, "" if unknown; `waiting` is in the order of sending."""

    owner: str = ""
    heard: float = -math.inf
    waiting: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Scanner:
    """When it last gave a verdict, and when the latest image was sent that it gave one for."""

    heard: float = -math.inf
    reached: float = -math.inf


class Steering:
    """Learns from verdicts which scanner reads which partition of `images`, and notices when one falls silent.

    A scanner is silent when an image waits in one of its partitions and it has given no verdict from any for the time
    of patience (`patience_s`). A partition is silent, too, where an image waits that much later ones have overtaken: at
    the same scanner, or at any while nobody knows who reads it. Silent partitions are avoided until a verdict comes
    from one of them; every second one image still goes there to try, with a copy on its way elsewhere. When all
    partitions are silent nothing is avoided and nothing is sent twice: then it is Kafka, or nobody is there.

    Images go by their hash, each always to the same partition while nothing is silent and `resize` says the same.
    `monotonic` is a clock in seconds. Belongs to one event loop.
    """

    def __init__(self, *, deadline_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._patience_most_s = max(_PATIENCE_SHARE * deadline_s, _PATIENCE_LEAST_S)
        self._monotonic = monotonic
        self._latency_s = math.inf
        self._partitions: list[_Partition] = []
        self._scanners: dict[str, _Scanner] = {}
        self._anyone = _Scanner()
        self._images: dict[str, _Image] = {}
        self._silent: set[int] = set()
        self._open: list[int] = []
        self._probed_at = -math.inf
        self._recent_images = 0.0
        self._recent_hedges = 0.0
        self._decayed_at = monotonic()

    @property
    def avoided(self) -> int:
        """How many partitions are avoided now."""
        return len(self._silent) if self._open else 0

    @property
    def waiting(self) -> int:
        """How many images were sent and neither judged nor forgotten."""
        return len(self._images)

    @property
    def patience_s(self) -> float:
        """How long a scanner with work may give no verdict: a few times the recent latency, within bounds."""
        return min(max(_PATIENCE_LATENCIES * self._latency_s, _PATIENCE_LEAST_S), self._patience_most_s)

    def resize(self, partitions: int) -> None:
        """Say how many partitions `images` has. Until then nothing is chosen."""
        while len(self._partitions) > partitions:
            for scan_id in self._partitions.pop().waiting:
                self._images[scan_id].partitions.remove(len(self._partitions))
        self._partitions += [_Partition() for _ in range(partitions - len(self._partitions))]
        self._settle({each for each in self._silent if each < partitions})

    def choose(self, key: bytes, *, again: bool = False) -> int | None:
        """The partition for the image with this hash; `again`: for a further copy of it.

        None while nobody knows how many partitions there are: let the producer choose.
        """
        count = len(self._partitions)
        if not count:
            return None
        number = int.from_bytes(key[:8])
        own = number % count
        if own not in self._silent or not self._open or (not again and self._may_probe()):
            return own
        return self._open[number // count % len(self._open)]

    def sent(self, scan_id: str, partition: int | None) -> None:
        """An image, or a further copy of it, is on its way to `partition`. `judged` or `forget` must follow."""
        if partition is None or partition >= len(self._partitions):
            return
        now = self._monotonic()
        image = self._images.get(scan_id)
        if image is None:
            image = self._images[scan_id] = _Image(now)
            self._recent_images += 1
        image.partitions.append(partition)
        image.due = now if partition in self._silent and self._open else now + self.patience_s
        self._partitions[partition].waiting[scan_id] = now

    def judged(self, scan_id: str, topic: str, partition: int, scanner: str) -> None:
        """A verdict came, for whichever gateway's image, from `partition` of `topic` (a name without prefix)."""
        now = self._monotonic()
        image = self._remove(scan_id)
        if topic != IMAGES.name or partition >= len(self._partitions):
            return
        there = self._partitions[partition]
        known = self._scanners.setdefault(scanner, _Scanner())
        known.heard = there.heard = now
        if image is not None and image.partitions == [partition]:
            known.reached = max(known.reached, image.first_sent)
            self._anyone.reached = max(self._anyone.reached, image.first_sent)
            self._note_latency(now - image.first_sent)
        former, there.owner = there.owner, scanner
        if self._silent:
            self._welcome_back(partition, former, scanner, now)
        if former != scanner:
            self._drop_idle(former)

    def forget(self, scan_id: str) -> None:
        """Nobody waits for this image any more."""
        self._remove(scan_id)

    def leaving(self, scanner: str) -> None:
        """A scanner said that it stops: others will have its partitions, nobody knows yet who."""
        for partition in self._partitions:
            if partition.owner == scanner:
                partition.owner = ""
        self._scanners.pop(scanner, None)

    def overdue(self) -> list[str]:
        """The images to send once more now, elsewhere (`choose` with `again`, then `sent`). Call it often."""
        now = self._monotonic()
        self._decay(now)
        self._notice_silence(now)
        if not self._open:
            return []
        named: list[str] = []
        for partition in self._silent:
            for scan_id in self._partitions[partition].waiting:
                image = self._images[scan_id]
                if (
                    image.due > now
                    or len(image.partitions) >= _COPIES_MOST
                    or not self._silent.issuperset(image.partitions)
                ):
                    continue
                if not self._may_hedge:
                    return named
                self._recent_hedges += 1
                image.due = now + self.patience_s
                named.append(scan_id)
        return named

    def _notice_silence(self, now: float) -> None:
        patience_s = self.patience_s
        out_of_order_s = _OVERTAKEN * max(_PATIENCE_LATENCIES * self._latency_s, _PATIENCE_LEAST_S)
        silent = set(self._silent)
        for number, partition in enumerate(self._partitions):
            if not partition.waiting or number in silent:
                continue
            since = max(next(iter(partition.waiting.values())), partition.heard)
            owner = self._scanners.get(partition.owner)
            if (owner or self._anyone).reached - since > out_of_order_s:
                partition.owner = ""
                silent.add(number)
            elif owner is not None and now - max(since, owner.heard) > patience_s:
                silent.update(other for other, each in enumerate(self._partitions) if each.owner == partition.owner)
        if len(silent) > len(self._silent):
            log.warning("no verdicts from some partitions", partitions=sorted(silent), patience_s=round(patience_s, 2))
            self._settle(silent)

    def _welcome_back(self, partition: int, former: str, scanner: str, now: float) -> None:
        """Stop avoiding what `scanner` reads. A verdict by another than the `former` owner: it lost all it had."""
        names = {scanner, former} if former and partition in self._silent else {scanner}
        back = {number for number in self._silent if self._partitions[number].owner in names}
        for number in back:
            there = self._partitions[number]
            there.heard = now
            if there.owner != scanner:
                there.owner = ""
        if back:
            log.info("verdicts from silent partitions again", partitions=sorted(back), scanner=scanner)
            self._settle(self._silent - back)

    def _settle(self, silent: set[int]) -> None:
        self._silent = silent
        self._open = [number for number in range(len(self._partitions)) if number not in silent]

    def _drop_idle(self, scanner: str) -> None:
        if all(partition.owner != scanner for partition in self._partitions):
            self._scanners.pop(scanner, None)

    def _remove(self, scan_id: str) -> _Image | None:
        image = self._images.pop(scan_id, None)
        if image is not None:
            for partition in image.partitions:
                self._partitions[partition].waiting.pop(scan_id, None)
        return image

    def _note_latency(self, seconds: float) -> None:
        if math.isinf(self._latency_s):
            self._latency_s = seconds
        self._latency_s += _LATENCY_WEIGHT * (seconds - self._latency_s)

    def _may_probe(self) -> bool:
        now = self._monotonic()
        if now - self._probed_at < _PROBE_EVERY_S or not self._may_hedge:
            return False
        self._probed_at = now
        return True

    @property
    def _may_hedge(self) -> bool:
        return self._recent_hedges < _HEDGES_ALWAYS + _HEDGES_SHARE * self._recent_images

    def _decay(self, now: float) -> None:
        kept = math.exp((self._decayed_at - now) / _HEDGES_OVER_S)
        self._recent_images *= kept
        self._recent_hedges *= kept
        self._decayed_at = now
