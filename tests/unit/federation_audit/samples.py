"""An invented case, as the store would fill it."""

import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from federation_audit.cases import (
    Action,
    Case,
    Contact,
    ContactKind,
    Counts,
    Decision,
    Incident,
    Judged,
    Level,
    Presence,
    Ratio,
    Removal,
    RuleHit,
)

NOW = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)


def incident(number: int = 1, **changes: Any) -> Incident:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    made = Incident(
        case_link=f"https://warden.my.example/cases/{number}",
        day=date(2026, 11, number),
        actor=f"a{number:03}",
        image_host="bad.example",
        communities=("https://my.example/c/pictures",),
        posts=(f"https://bad.example/post/{number}",),
        sha256s=(digest,),
        pdqs=(digest[::-1],),
        rules=(RuleHit("minors", "A picture of a young person together with sexual content."),),
        lists=(),
        posted_at=datetime(2026, 11, number, 8, 30, tzinfo=UTC),
        judged_at=datetime(2026, 11, number, 8, 31, tzinfo=UTC),
        presence=Presence.UP,
        confirmed_by="two reviewers",
    )
    return replace(made, **changes)


def case(**changes: Any) -> Case:
    made = Case(
        domain="bad.example",
        tenant="my.example",
        since=date(2026, 10, 29),
        until=date(2026, 11, 28),
        level=Level.RECOMMEND,
        reasons=("3 independent incidents were confirmed among 1,200 images; at most 0.1 would be usual.",),
        counts=Counts(exposure=1200, flagged=19, expected=2.4, confirmed=3, actors=2, days=3),
        ratio=Ratio(5.1, 3.2, 7.9),
        removal=Removal(3, 1, timedelta(hours=30)),
        incidents=(
            incident(1),
            incident(9, presence=Presence.GONE, lists=("partners@7",), confirmed_by="a verified hash list"),
            incident(17, actor="a001", image_host="i.images.example", posted_at=None, presence=Presence.UNKNOWN),
            incident(20, confirmed_by=""),
        ),
        contacts=(Contact(ContactKind.MAIL, "abuse@bad.example", "site API /api/v2/instance"),),
        link="https://warden.my.example/instances/bad.example",
    )
    return replace(made, **changes)


def judged(action: Action = Action.DEFEDERATE, *, until: datetime | None = None, **changes: Any) -> Judged:
    made = case(**changes)
    return Judged(
        made, Decision(made.domain, action, "nobody answers there", "alice", NOW, until or NOW + timedelta(days=90))
    )
