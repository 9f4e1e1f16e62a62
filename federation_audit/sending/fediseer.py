"""Fediseer: a hesitation or a censure. An answer of "OK" means that there was one already: then nothing has changed."""

import secrets
from dataclasses import replace
from datetime import datetime

from federation_audit.cases import Judged
from federation_audit.exports.fediseer import Opinion, statement
from federation_audit.sending.confirming import Channel, Confirmation, Outcome, Plan, Sent, check
from federation_audit.sending.errors import Changed
from federation_audit.sending.remote import Remote

ADDRESS = "https://fediseer.com"


class Fediseer:
    """A Fediseer, spoken to with the API key of our instance."""

    def __init__(self, api_key: str, *, address: str = ADDRESS, answer_within_s: float = 20.0) -> None:
        self._remote = Remote(
            address,
            {"apikey": api_key, "Client-Agent": "fediwarden:0:unknown"},
            remedy="the API key, and whether our instance is guaranteed (Fediseer takes no word of others)",
            answer_within_s=answer_within_s,
        )

    def plan(self, judged: Judged, opinion: Opinion) -> Plan:
        """What would be said. Raises `NotExpressible`."""
        said = statement(judged, opinion)
        one = "a hesitation about" if opinion is Opinion.HESITATION else "a censure of"
        return Plan(
            channel=Channel.FEDISEER,
            to=self._remote.address,
            request=f"PUT {said.path}",
            payload=dict(said.body),
            changes=(
                f"everybody will see {one} {said.domain} by our instance, with this reason and evidence",
                "one that we gave before stays as it is",
            ),
            nonce=secrets.token_hex(8),
        )

    async def send(self, plan: Plan, confirmation: Confirmation, *, at: datetime) -> Sent:
        """Say it. Raises `NotSent`."""
        check(plan, confirmation)
        if plan.to != self._remote.address:
            raise Changed(f"the plan is for {plan.to}, this is {self._remote.address}")
        record, answer = await self._remote.write("PUT", plan.request.partition(" ")[2], plan, confirmation, at=at)
        if answer is None or record.outcome is not Outcome.ACCEPTED:
            return record
        try:
            message = answer.json()["message"]
        except (ValueError, KeyError, TypeError):
            return replace(record, outcome=Outcome.UNKNOWN)
        return replace(record, answer="there was one already; nothing changed") if message == "OK" else record

    async def close(self) -> None:
        """Disconnect."""
        await self._remote.close()
