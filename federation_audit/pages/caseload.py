"""Cases as the pages of decisions, reports and exports need them, and the assessments that people were shown."""

import threading
import time
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection, select

from federation_audit.assessing.assessor import Assessed, Assessor
from federation_audit.assessing.case import build_case
from federation_audit.cases import Judged, Level
from federation_audit.deciding.decisions import decision_in_force
from federation_audit.pages.cells import Mark, Tone
from federation_audit.pages.site import Site
from federation_audit.store.identities import TextKind
from federation_audit.store.tables import EVIDENCE, TEXTS

DAYS: Final = 90
"""How far back a case goes, unless its instance has cleaned up since."""

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

_KEPT = 4
_KEPT_S = 1_800.0


def level_mark(level: Level) -> Mark:
    """A level as a cell."""
    word, tone, _ = LEVELS[level]
    return Mark(word, tone)


def level_of(assessed: Assessed, domain: str) -> Level:
    """The level of `domain`; of what nothing is known, insufficient."""
    found = assessed.assessment.instances.get(domain)
    return Level.INSUFFICIENT if found is None else Level(int(found.level))


def since_of(assessed: Assessed, domain: str) -> date:
    """From when on a case of `domain` is about."""
    back = assessed.assessment.at - timedelta(days=DAYS)
    found = assessed.assessment.instances.get(domain)
    if found is None or found.decision.remediation is None:
        return back
    return max(back, found.decision.since)


def read_judged(site: Site, connection: Connection, assessed: Assessed, domain: str, at: int) -> Judged:
    """The case of `domain`, with the decision in force at `at`."""
    taken = decision_in_force(connection, domain, at)
    public = site.settings.public_url
    case = build_case(
        connection,
        assessed,
        domain,
        since=since_of(assessed, domain),
        until=assessed.assessment.at,
        link=f"{public}/instances/{quote(domain, safe='')}" if public else "",
    )
    return Judged(case, None if taken is None else taken.for_case())


def read_all_judged(
    site: Site, connection: Connection, assessed: Assessed, domains: Iterable[str], at: int
) -> list[Judged]:
    """The cases of `domains`, by domain."""
    return [read_judged(site, connection, assessed, domain, at) for domain in sorted(domains)]


def flagged_domains(connection: Connection) -> list[str]:
    """Every instance that a flagged image came from, by name."""
    query = (
        select(TEXTS.c.text)
        .where(TEXTS.c.kind == int(TextKind.INSTANCE), TEXTS.c.id.in_(select(EVIDENCE.c.instance_id)))
        .order_by(TEXTS.c.text)
    )
    return list(connection.scalars(query))


class Shown:
    """The assessments that plans were made from, for half an hour: the same case can be made again from them, however
    many images have come meanwhile. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[float, Assessed]] = {}

    def keep(self, assessed: Assessed) -> int:
        """Keep it; the number that it is found by."""
        now = time.monotonic()
        with self._lock:
            self._kept.pop(assessed.made_at, None)
            self._kept[assessed.made_at] = (now, assessed)
            for made_at, (since, _) in list(self._kept.items()):
                if now - since > _KEPT_S or len(self._kept) > _KEPT:
                    del self._kept[made_at]
        return assessed.made_at

    def find(self, number: int, assessor: Assessor) -> Assessed:
        """The one that was kept, else the newest."""
        with self._lock:
            kept = self._kept.get(number)
        return assessor.newest() if kept is None else kept[1]
