"""Cases as the pages of decisions, reports and exports need them, and the assessments that people were shown."""

import threading
import time
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from federation_audit.assessing.assessor import Assessed, Assessor
from federation_audit.cases import Level
from federation_audit.deciding.caseload import Caseload
from federation_audit.pages.cells import Mark, Tone
from federation_audit.pages.site import Site
from federation_audit.statistics.events import Evidence
from schemas.clock import now_ms

LEVELS: Final[dict[Level, tuple[str, Tone, str]]] = {
    Level.INSUFFICIENT: ("insufficient", "plain", "The evidence carries no action against this instance."),
    Level.WATCH: (
        "watch",
        "watch",
        "More is flagged than is usual; too little of it is confirmed for more than a look.",
    ),
    Level.RESTRICT: (
        "restrict",
        "warn",
        "The evidence carries writing to its admins, or taking no images for a while.",
    ),
    Level.RECOMMEND: ("recommend", "bad", "The evidence carries every action here. Which one is for a person to say."),
}
"""Each level's word, its tone, and what it carries."""

_KEPT = 16
_KEPT_S = 1_800.0


def level_mark(level: Level) -> Mark:
    """A level as a cell."""
    word, tone, _ = LEVELS[level]
    return Mark(word, tone)


def level_of(assessed: Assessed, domain: str) -> Level:
    """The level of `domain`; of what nothing is known, insufficient."""
    found = assessed.assessment.instances.get(domain)
    return Level.INSUFFICIENT if found is None else Level(int(found.level))


def caseload_of(site: Site) -> Caseload:
    """What makes the cases of these pages."""
    known = site.surroundings
    return Caseload(known.sentences, known.tenant_domains, site.settings.public_url or "")


class Shown:
    """What was known of the instances of a plan when it was made, for half an hour: the same case can be made again
    from it, however many images have come meanwhile. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[float, Assessed]] = {}

    def keep(self, assessed: Assessed, instances: Collection[str]) -> int:
        """Keep what it says of `instances`; the number that it is found by."""
        known = replace(assessed.known, evidence=Evidence())  # every incident of everybody: cases read their own
        about = replace(assessed, assessment=assessed.assessment.about(instances), known=known)
        now = time.monotonic()
        with self._lock:
            number = max(now_ms(), 1 + max(self._kept, default=0))
            self._kept[number] = (now, about)
            for other, (since, _) in list(self._kept.items()):
                if now - since > _KEPT_S or len(self._kept) > _KEPT:
                    del self._kept[other]
        return number

    def find(self, number: int, assessor: Assessor) -> Assessed:
        """The one that was kept, else the newest."""
        with self._lock:
            kept = self._kept.get(number)
        return assessor.newest() if kept is None else kept[1]
