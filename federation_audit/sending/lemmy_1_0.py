"""Lemmy 1.0: POST /api/v4/admin/instance/block, one instance a call, with its own expiry.

GET /api/v4/federated_instances?kind=blocked tells what is blocked already; such an instance is left alone, so that a
block without an end never becomes one with an end.
"""

import secrets
from datetime import datetime
from typing import Any

from federation_audit.cases import Judged
from federation_audit.exports.export import day_of
from federation_audit.exports.lemmy import block_instance
from federation_audit.sending.confirming import Channel, Confirmation, Plan, Sent, basis_of, check
from federation_audit.sending.errors import Changed, NothingToDo, SideUnexpected
from federation_audit.sending.remote import Remote

_PATH = "/api/v4/admin/instance/block"
_PAGES_MOST = 20


class Lemmy10:
    """A Lemmy 1.0, spoken to as one of its admins."""

    def __init__(self, address: str, jwt: str, *, answer_within_s: float = 20.0) -> None:
        self._remote = Remote(
            address,
            {"authorization": f"Bearer {jwt}"},
            remedy="the token: it is of an admin's session, and ends when that is logged out",
            answer_within_s=answer_within_s,
        )

    async def plan(self, judged: Judged, *, block: bool = True) -> Plan:
        """What blocking (or lifting the block of) this instance would change. Raises `NotSent`, `NotExpressible`."""
        payload = block_instance(judged, block=block)
        domain = payload["instance"]
        state = await self._state(domain)
        if (state is not None) is block:
            raise NothingToDo(f"{self._remote.address} {'blocks' if block else 'does not block'} {domain} already")
        until = None if judged.decision is None else judged.decision.until
        if not block:
            change = f"{domain} will not be blocked any more"
        elif until is None:
            change = f"{domain} will be blocked, without an end"
        else:
            change = f"{domain} will be blocked until {day_of(until)}"
        return Plan(
            channel=Channel.LEMMY_1_0,
            to=self._remote.address,
            request=f"POST {_PATH}",
            payload=payload,
            changes=(change, "no other block is touched", "the reason is in the public modlog"),
            nonce=secrets.token_hex(8),
            basis=basis_of([] if state is None else [state]),
        )

    async def send(self, plan: Plan, confirmation: Confirmation, *, at: datetime) -> Sent:
        """Make the call, when the instance is still blocked (or not) as it was shown. Raises `NotSent`."""
        check(plan, confirmation)
        if plan.to != self._remote.address:
            raise Changed(f"the plan is for {plan.to}, this is {self._remote.address}")
        domain = plan.payload["instance"]
        state = await self._state(domain)
        if basis_of([] if state is None else [state]) != plan.basis:
            raise Changed(f"the block of {domain} has changed since it was shown; look at it again")
        record, _ = await self._remote.write("POST", _PATH, plan, confirmation, at=at)
        return record

    async def _state(self, domain: str) -> str | None:
        """How `domain` is blocked (its expiry), None where it is not. The filter of the API finds parts of names."""
        query = {"kind": "blocked", "domain_filter": domain, "limit": "50"}
        for _ in range(_PAGES_MOST):
            answer = await self._remote.read("/api/v4/federated_instances", query)
            try:
                page: Any = answer.json()
                for item in page["items"]:
                    if str(item["instance"]["domain"]).lower() == domain and item.get("blocked"):
                        return f"blocked, expires {item['blocked'].get('expires_at')}"
                following = page.get("next_page")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise SideUnexpected(
                    f"{self._remote.address} does not list instances as Lemmy 1.0 does; is it one (0.19: lemmy-0.19)?"
                ) from error
            if not following:
                return None
            query = {**query, "page_cursor": str(following)}
        raise SideUnexpected(f"{self._remote.address} has more than {_PAGES_MOST} pages of blocks like {domain}")

    async def close(self) -> None:
        """Disconnect."""
        await self._remote.close()
