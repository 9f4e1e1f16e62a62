"""Mastodon: domain blocks by its administration API (scopes admin:read:domain_blocks, admin:write:domain_blocks).

A block that is as strict already, of the domain itself or of one above it, is left alone; a weaker one of the domain
itself is made stricter (PUT), with its comments and its other flags untouched; none is ever softened.
"""

import secrets
from datetime import datetime
from typing import Any

from federation_audit.cases import Judged
from federation_audit.exports.mastodon import domain_block
from federation_audit.sending.confirming import Channel, Confirmation, Plan, Sent, basis_of, check
from federation_audit.sending.errors import Changed, NothingToDo, SideUnexpected
from federation_audit.sending.remote import Remote

_PATH = "/api/v1/admin/domain_blocks"
_STRICTNESS = {"noop": 0, "silence": 1, "suspend": 2}
_PER_PAGE = 100
_PAGES_MOST = 200


class Mastodon:
    """A Mastodon, spoken to with the token of an application of an admin's."""

    def __init__(self, address: str, token: str, *, answer_within_s: float = 20.0) -> None:
        self._remote = Remote(
            address,
            {"authorization": f"Bearer {token}"},
            remedy="the token, and whether it has the scopes admin:read:domain_blocks and admin:write:domain_blocks",
            answer_within_s=answer_within_s,
        )

    async def plan(self, judged: Judged) -> Plan:
        """What the block would change. Raises `NotSent`, and `NotExpressible` where nothing is to be blocked."""
        wanted = domain_block(judged)
        rule = await self._rule_for(wanted["domain"])
        if rule is None:
            request, payload = f"POST {_PATH}", wanted
            changes = [f"{wanted['domain']} will be {_words(wanted['severity'])}; its media will not be taken"]
        else:
            if _is_enough(rule, wanted):
                there = f"{rule['domain']} is {_words(rule['severity'])} already"
                raise NothingToDo(f"{self._remote.address}: {there}, which is as strict")
            if rule["domain"].lower() != wanted["domain"]:
                raise SideUnexpected(
                    f"{rule['domain']}, above {wanted['domain']}, has a weaker block, and Mastodon takes no second one"
                    " below it; change that one there"
                )
            stricter = max(str(rule["severity"]), wanted["severity"], key=_STRICTNESS.__getitem__)
            request, payload = f"PUT {_PATH}/{int(rule['id'])}", {"severity": stricter, "reject_media": True}
            becomes = f"{_words(rule['severity'])} becomes {_words(stricter)}"
            changes = [
                f"{wanted['domain']}: {becomes}; its media will not be taken",
                "its comments stay as they are",
            ]
        if wanted["severity"] == "suspend":
            changes.append("suspending removes the accounts of that domain and every follow, for good")
        changes.append("Mastodon knows no expiry: the block stays until somebody lifts it")
        return Plan(
            channel=Channel.MASTODON,
            to=self._remote.address,
            request=request,
            payload=payload,
            changes=tuple(changes),
            nonce=secrets.token_hex(8),
            basis=_basis(wanted["domain"], rule),
        )

    async def send(self, plan: Plan, confirmation: Confirmation, *, at: datetime) -> Sent:
        """Set the block, when what is there is what was shown. Raises `NotSent`."""
        check(plan, confirmation)
        if plan.to != self._remote.address:
            raise Changed(f"the plan is for {plan.to}, this is {self._remote.address}")
        domain = plan.basis.partition(" ")[0]
        if _basis(domain, await self._rule_for(domain)) != plan.basis:
            raise Changed(f"the block of {domain} has changed since it was shown; look at it again")
        method, _, path = plan.request.partition(" ")
        record, _ = await self._remote.write(method, path, plan, confirmation, at=at)
        return record

    async def _rule_for(self, domain: str) -> dict[str, Any] | None:
        """The block that holds for `domain`: of the domain itself, else the nearest above it."""
        found: dict[str, dict[str, Any]] = {}
        query = {"limit": str(_PER_PAGE)}
        for _ in range(_PAGES_MOST):
            answer = await self._remote.read(_PATH, query)
            try:
                page: list[dict[str, Any]] = answer.json()
                for each in page:
                    if str(each["severity"]) not in _STRICTNESS:
                        raise ValueError("an unknown severity")
                    found[str(each["domain"]).lower()] = each
                oldest = str(int(page[-1]["id"])) if page else ""
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise SideUnexpected(f"{self._remote.address} does not list domain blocks as Mastodon does") from error
            if 'rel="next"' not in answer.headers.get("link", ""):
                labels = domain.split(".")
                above = (".".join(labels[index:]) for index in range(len(labels)))
                return next((found[name] for name in above if name in found), None)
            if not oldest or query.get("max_id") == oldest:
                break
            query["max_id"] = oldest
        raise SideUnexpected(f"the list of {self._remote.address} does not end; nothing is sent without all of it")

    async def close(self) -> None:
        """Disconnect."""
        await self._remote.close()


def _is_enough(rule: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if rule["severity"] == "suspend":
        return True
    strict = _STRICTNESS[rule["severity"]] >= _STRICTNESS[wanted["severity"]]
    return strict and bool(rule.get("reject_media"))


def _basis(domain: str, rule: dict[str, Any] | None) -> str:
    parts = (
        [] if rule is None else [f"{name}={rule.get(name)}" for name in ("id", "domain", "severity", "reject_media")]
    )
    return f"{domain} {basis_of(parts)}"


def _words(severity: object) -> str:
    return {"noop": "federated with", "silence": "limited", "suspend": "suspended"}.get(str(severity), "blocked")
