"""Fediseer: hesitations (doubt) and censures (disapproval), with evidence.

PUT /api/v1/hesitations/{domain} and PUT /api/v1/censures/{domain} with ``{"reason", "evidence"}``; evidence has at most
1,000 characters (fediseer/apis/models/v1.py). Others filter by words of the reason: ours is the same for everybody and
says no more than is known. A hesitation comes first: a censure needs the decision to defederate.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from federation_audit.cases import Action, Judged, Presence
from federation_audit.exports.export import Export, LeftOut, NotExpressible, facts_line, host_name
from federation_audit.neutralising import http_url, one_line
from federation_audit.reports.report import posts_of

REASON: Final = "abusive images"
EVIDENCE_MOST: Final = 1000


class Opinion(StrEnum):
    """What is said of an instance; the words are those of the API's paths."""

    HESITATION = "hesitations"
    CENSURE = "censures"


@dataclass(frozen=True, slots=True)
class Statement:
    """One call: its path and its body."""

    opinion: Opinion
    domain: str
    body: dict[str, str]

    @property
    def path(self) -> str:
        """The path below the address of the Fediseer."""
        return f"/api/v1/{self.opinion.value}/{self.domain}"


def statement(judged: Judged, opinion: Opinion) -> Statement:
    """What to say of the instance. Raises `NotExpressible`: the decision does not carry it, or no host name."""
    if judged.action is Action.NONE:
        raise NotExpressible(f"the decision on {judged.case.domain} is none: nothing to say to others")
    if opinion is Opinion.CENSURE and judged.action is not Action.DEFEDERATE:
        raise NotExpressible(
            f"a censure of {judged.case.domain} needs the decision to defederate; say a hesitation first"
        )
    if not judged.case.confirmed:
        raise NotExpressible(f"no incident of {judged.case.domain} is confirmed: there is no evidence to show")
    return Statement(opinion, host_name(judged.case.domain), {"reason": REASON, "evidence": evidence(judged)})


def evidence(judged: Judged) -> str:
    """The facts, the case's link, then SHA-256 hashes, as many as have room. No address of a post that is still up."""
    parts = [facts_line(judged)]
    if link := http_url(judged.case.link):
        parts.append(link)
    for incident in judged.case.confirmed:
        gone = posts_of(incident)[:1] if incident.presence is Presence.GONE else ()
        parts += [f"sha256:{one_line(each, 64)}" for each in incident.sha256s[:1]] + list(gone)
    text = parts[0]
    for part in parts[1:]:
        if len(text) + len(part) + 2 > EVIDENCE_MOST:
            break
        text = f"{text}; {part}"
    return text


def statements(cases: Iterable[Judged]) -> Export:
    """One JSON object a line, path and body; a censure where defederation was decided, else a hesitation."""
    lines, left_out = [], []
    for each in sorted(cases, key=lambda each: each.case.domain):
        opinion = Opinion.CENSURE if each.action is Action.DEFEDERATE else Opinion.HESITATION
        try:
            said = statement(each, opinion)
        except NotExpressible as error:
            left_out.append(LeftOut(each.case.domain, str(error)))
            continue
        call: dict[str, Any] = {"method": "PUT", "path": said.path, "body": said.body}
        lines.append(orjson.dumps(call, option=orjson.OPT_APPEND_NEWLINE))
    return Export("fediseer.jsonl", "application/jsonl", b"".join(lines), tuple(left_out))
