"""Lemmy: what its two APIs are asked for a block.

0.19 has no call for one block: PUT /api/v3/site replaces the whole list (`blocked_instances`), so that the present list
must be known; `union` adds to it and never drops. 1.0 has POST /api/v4/admin/instance/block, one instance a call, with
`expires_at` in seconds since 1970 (crates/db_views/site/src/api.rs, ``AdminBlockInstanceParams``).

Lemmy has no way to refuse an instance's pictures alone: restrict-media cannot be said.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from federation_audit.cases import Action, Judged
from federation_audit.exports.export import (
    COMMENT_MOST,
    Export,
    LeftOut,
    NotExpressible,
    blocked,
    facts_line,
    host_name,
)
from federation_audit.neutralising import one_line


def blocked_domain(judged: Judged) -> str:
    """The domain that Lemmy should block. Raises `NotExpressible`: another decision, or no host name."""
    if judged.action is Action.RESTRICT_MEDIA:
        raise NotExpressible(
            "Lemmy cannot refuse an instance's images alone; decide for contact or defederate, or set"
            " image_mode to None in lemmy.hjson for all instances"
        )
    if judged.action is not Action.DEFEDERATE:
        raise NotExpressible(f"the decision on {judged.case.domain} is {judged.action.value}: nothing to block")
    return host_name(judged.case.domain)


def union(present: Sequence[str], added: Iterable[str]) -> tuple[str, ...]:
    """`present` as it is, in its order and spelling, and behind it those of `added` that it has not."""
    have = {each.lower() for each in present}
    return (*present, *(each for each in dict.fromkeys(added) if each not in have))


def edit_site(present: Sequence[str], cases: Iterable[Judged]) -> dict[str, Any]:
    """The body of 0.19's PUT /api/v3/site. It has the one field: what is not given stays. Raises `NotExpressible`."""
    return {"blocked_instances": list(union(present, map(blocked_domain, cases)))}


def block_instance(judged: Judged, *, block: bool = True) -> dict[str, Any]:
    """The body of 1.0's POST /api/v4/admin/instance/block; `block` False lifts it. Raises `NotExpressible`."""
    body: dict[str, Any] = {
        "instance": blocked_domain(judged) if block else host_name(judged.case.domain),
        "block": block,
        "reason": one_line(facts_line(judged) if block else "lifted by decision", COMMENT_MOST),
    }
    if block and judged.decision is not None and judged.decision.until is not None:
        body["expires_at"] = int(judged.decision.until.timestamp())
    return body


def block_calls(cases: Iterable[Judged]) -> Export:
    """Every call that 1.0 would be made, a JSON object a line, for who wants to make them otherwise."""
    lines, left_out = [], []
    for each in blocked(cases):
        try:
            lines.append(orjson.dumps(block_instance(each), option=orjson.OPT_APPEND_NEWLINE))
        except NotExpressible as error:
            left_out.append(LeftOut(each.case.domain, str(error)))
    return Export("lemmy-1.0-blocks.jsonl", "application/jsonl", b"".join(lines), tuple(left_out))


def block_list(cases: Iterable[Judged]) -> Export:
    """The domains alone, a line each, as 0.19's page "Blocked instances" takes them one after the other."""
    names, left_out = [], []
    for each in blocked(cases):
        try:
            names.append(blocked_domain(each))
        except NotExpressible as error:
            left_out.append(LeftOut(each.case.domain, str(error)))
    content = "".join(f"{name}\n" for name in names).encode()
    return Export("lemmy-0.19-blocks.txt", "text/plain; charset=utf-8", content, tuple(left_out))
