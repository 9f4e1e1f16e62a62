"""Coop: an incident handed over for review."""

import secrets
from datetime import datetime

from federation_audit.cases import Case, Incident
from federation_audit.exports.coop import CoopTypes, report_body
from federation_audit.sending.confirming import Channel, Confirmation, Plan, Sent, check
from federation_audit.sending.errors import Changed
from federation_audit.sending.remote import Remote

_PATH = "/api/v1/report"


class Coop:
    """A Coop, spoken to with an API key of our organisation there."""

    def __init__(self, address: str, api_key: str, types: CoopTypes, *, answer_within_s: float = 20.0) -> None:
        self._types = types
        self._remote = Remote(address, {"x-api-key": api_key}, remedy="the API key", answer_within_s=answer_within_s)

    def plan(self, case: Case, incident: Incident, *, reporter: str, at: datetime) -> Plan:
        """What would be handed over."""
        return Plan(
            channel=Channel.COOP,
            to=self._remote.address,
            request=f"POST {_PATH}",
            payload=report_body(case, incident, self._types, reporter=reporter, at=at),
            changes=("a job is put into Coop's queue", "no image and no address of one is handed over"),
            nonce=secrets.token_hex(8),
        )

    async def send(self, plan: Plan, confirmation: Confirmation, *, at: datetime) -> Sent:
        """Hand it over. Raises `NotSent`."""
        check(plan, confirmation)
        if plan.to != self._remote.address:
            raise Changed(f"the plan is for {plan.to}, this is {self._remote.address}")
        record, _ = await self._remote.write("POST", _PATH, plan, confirmation, at=at)
        return record

    async def close(self) -> None:
        """Disconnect."""
        await self._remote.close()
