"""Whether there can be anything to see of a medium, by what the store knows of it."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, select

from federation_audit.store.facts import DENIED
from federation_audit.store.identities import TextKind
from federation_audit.store.queries import read_judgements, read_strata
from federation_audit.store.tables import FLAGS, MARKS, MEDIA, TEXTS
from schemas.messages import Decision

_REMOVED = "enforced:removed"


class Hidden(StrEnum):
    """Why there is nothing to see of a medium."""

    REJECTED = "rejected"
    DENIED = "denied"
    REMOVED = "removed"
    NOT_SCANNED = "not-scanned"


@dataclass(frozen=True, slots=True)
class Medium:
    """A medium, as far as looking at it goes.

    `judged_at` are the times at which a scanner judged it, the newest first: about then its frames were archived.
    `frame` is the frame that a rule saw worst. `hidden` is why there is nothing to see.
    """

    tenant: str
    sha256: bytes
    decision: Decision | None
    scan_id: str
    rules: tuple[str, ...]
    judged_at: tuple[int, ...]
    frame: int
    hidden: Hidden | None

    @property
    def path(self) -> str:
        """The path of its page."""
        return picture_path(self.tenant, self.sha256)


def picture_path(tenant: str, sha256: bytes) -> str:
    """The path of a medium's page."""
    return f"/picture/{tenant}/{sha256.hex()}"


def read_medium(connection: Connection, tenant: str, sha256: bytes) -> Medium | None:
    """What the store knows of a medium; None where it was never met."""
    tenant_id = select(TEXTS.c.id).where(TEXTS.c.kind == int(TextKind.TENANT), TEXTS.c.text == tenant).scalar_subquery()
    number = connection.execute(
        select(MEDIA.c.id).where(MEDIA.c.sha256 == sha256, MEDIA.c.tenant_id == tenant_id)
    ).scalar()
    if number is None:
        return None
    judgements = read_judgements(connection, number)
    strata = read_strata(connection)
    scanned = [each["judged_at"] for each in judgements if not strata[each["stratum"]].is_list]
    marked = select(TEXTS.c.text, MARKS.c.at).join(TEXTS, TEXTS.c.id == MARKS.c.mark_id)
    marks = {row.text: row.at for row in connection.execute(marked.where(MARKS.c.media_id == number))}
    newest = judgements[0] if judgements else None
    detail = connection.execute(select(FLAGS.c.detail).where(FLAGS.c.media_id == number)).scalar()
    return Medium(
        tenant=tenant,
        sha256=sha256,
        decision=Decision(newest["decision"]) if newest else None,
        scan_id=newest["scan_id"] if newest else "",
        rules=tuple(newest["rules"]) if newest else (),
        judged_at=tuple(dict.fromkeys(scanned)),
        frame=_worst_frame(json.loads(detail)) if detail else 0,
        hidden=_hidden(judgements, marks, scanned),
    )


def _hidden(judgements: list[dict[str, Any]], marks: dict[str, int], scanned: list[int]) -> Hidden | None:
    """Of judgements of one moment the strictest counts: what might have been erased is not looked for."""
    newest = judgements[0]["judged_at"] if judgements else 0
    if any(each["decision"] == Decision.REJECT for each in judgements if each["judged_at"] == newest):
        return Hidden.REJECTED
    for mark, hidden in ((DENIED, Hidden.DENIED), (_REMOVED, Hidden.REMOVED)):
        if mark in marks and marks[mark] >= newest:
            return hidden
    return None if scanned else Hidden.NOT_SCANNED


def _worst_frame(detail: dict[str, Any]) -> int:
    ranks = {Decision.REJECT.value: 0, Decision.REVIEW.value: 1}
    rules = sorted(detail.get("rules", ()), key=lambda rule: ranks.get(rule["decision"], 2))
    return int(rules[0]["frame"]) if rules else 0
