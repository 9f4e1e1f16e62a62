"""Lemmy 0.19: blocks by PUT /api/v3/site, which replaces the whole list.

Read (GET /api/v3/federated_instances), unite, show; before the PUT read again, and send only when the list is the one
that was shown; afterwards read once more and say whether everything that was there is there still. Between our last
look and the PUT another admin may still change the list: Lemmy 0.19 has no condition that a PUT could carry. That
window is one request long, and the look afterwards shows what came of it.
"""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from federation_audit.cases import Judged
from federation_audit.exports.lemmy import edit_site
from federation_audit.neutralising import one_line
from federation_audit.sending.confirming import Channel, Confirmation, Outcome, Plan, Sent, basis_of, check
from federation_audit.sending.errors import Changed, NothingToDo, NotSent, SideUnexpected
from federation_audit.sending.remote import Remote

_PATH = "/api/v3/site"


class Lemmy019:
    """A Lemmy 0.19, spoken to as one of its admins."""

    def __init__(self, address: str, jwt: str, *, answer_within_s: float = 20.0) -> None:
        self._remote = Remote(
            address,
            {"authorization": f"Bearer {jwt}"},
            remedy="the token: it is of an admin's session, and ends when that is logged out",
            answer_within_s=answer_within_s,
        )

    async def plan(self, cases: Sequence[Judged]) -> Plan:
        """What blocking these would change. Raises `NotSent`, and `NotExpressible` where a case is no block."""
        present = await self._blocked()
        payload = edit_site(present, cases)
        added = payload["blocked_instances"][len(present) :]
        if not added:
            raise NothingToDo(f"{self._remote.address} blocks all of these already")
        return Plan(
            channel=Channel.LEMMY_0_19,
            to=self._remote.address,
            request=f"PUT {_PATH}",
            payload=payload,
            changes=(
                *(f"{domain} will be blocked" for domain in added),
                f"the {len(present)} present blocks stay as they are",
                "Lemmy 0.19 knows no expiry: the block stays until somebody lifts it",
            ),
            nonce=secrets.token_hex(8),
            basis=basis_of(present),
        )

    async def send(self, plan: Plan, confirmation: Confirmation, *, at: datetime) -> Sent:
        """Set the list that was shown, when the present one is still the one it was made from. Raises `NotSent`."""
        check(plan, confirmation)
        if plan.to != self._remote.address:
            raise Changed(f"the plan is for {plan.to}, this is {self._remote.address}")
        if basis_of(await self._blocked()) != plan.basis:
            raise Changed(f"the blocklist of {plan.to} has changed since it was shown; look at the difference again")
        record, _ = await self._remote.write("PUT", _PATH, plan, confirmation, at=at)
        return await self._look_again(plan, record)

    async def _look_again(self, plan: Plan, record: Sent) -> Sent:
        if record.outcome is Outcome.REFUSED:
            return record
        try:
            now = set(await self._blocked())
        except NotSent as error:
            return replace(record, answer=one_line(f"{record.answer} (not looked at afterwards: {error})", 500))
        missing = sorted(set(plan.payload["blocked_instances"]) - now)
        if missing:
            said = f"answered {record.status}, but not blocked afterwards: {', '.join(missing[:10])}"
            return replace(record, outcome=Outcome.UNKNOWN, answer=one_line(said, 500))
        return replace(record, outcome=Outcome.ACCEPTED)

    async def _blocked(self) -> tuple[str, ...]:
        answer = await self._remote.read("/api/v3/federated_instances")
        try:
            listed: Any = answer.json()["federated_instances"]
            if listed is None:
                raise SideUnexpected(f"federation is off at {self._remote.address}: there is nothing to block")
            allowed = listed.get("allowed") or []
            blocked = tuple(str(each["domain"]) for each in listed["blocked"] or [])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SideUnexpected(
                f"{self._remote.address} does not list instances as Lemmy 0.19 does; is it one (1.0: lemmy-1.0)?"
            ) from error
        if allowed:
            raise SideUnexpected(
                f"{self._remote.address} federates by an allowlist; take the domain off that, which a person does there"
            )
        return blocked

    async def close(self) -> None:
        """Disconnect."""
        await self._remote.close()
