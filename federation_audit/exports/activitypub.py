"""ActivityPub: `Flag` activities, without media.

Two dialects. Lemmy (crates/apub, ``Report``) takes one object an activity, addressed to the community, the text in
`summary`. Mastodon (app/lib/activitypub/activity/flag.rb) takes a list of objects, the account's id first and its
statuses behind it, the text in `content`; a Flag without an account does nothing there. As we know accounts by
pseudonyms alone, their ids must be given by whoever exports.

An activity must be signed with its actor's key, so that the software whose actor it is has to deliver it; we do not.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from federation_audit.cases import Case, Incident, Judged
from federation_audit.exports.export import Export, LeftOut, NotExpressible, facts_line
from federation_audit.neutralising import http_url, one_line
from federation_audit.reports.report import posts_of

CONTEXT: Final = "https://www.w3.org/ns/activitystreams"
CONTENT_MOST: Final = 1000


def lemmy_flags(case: Case, actor: str) -> list[dict[str, Any]]:
    """A Flag for each post of a confirmed incident whose community's id is known. Raises `NotExpressible`."""
    by = _actor(actor)
    flags = []
    for incident in case.confirmed:
        community = next((url for url in map(http_url, incident.communities) if url), "")
        if not community:
            continue
        text = _text(incident)
        flags += [
            {
                "@context": CONTEXT,
                "id": _id(by, post),
                "type": "Flag",
                "actor": by,
                "to": [community],
                "audience": community,
                "object": post,
                "summary": text,
                "content": text,
            }
            for post in posts_of(incident)
        ]
    if not flags:
        raise NotExpressible(f"no post of {case.domain} is known together with its community")
    return flags


def mastodon_flag(judged: Judged, actor: str, accounts: Sequence[str]) -> dict[str, Any]:
    """One Flag for all posts of the confirmed incidents; `accounts` are the ids of who posted them.

    Raises `NotExpressible`.
    """
    by = _actor(actor)
    whose = [url for url in map(http_url, accounts) if url]
    if not whose:
        raise NotExpressible(
            "Mastodon takes a report of an account only: give its ActivityPub id (https://.../users/name)"
        )
    posts = list(dict.fromkeys(post for each in judged.case.confirmed for post in posts_of(each)))
    return {
        "@context": CONTEXT,
        "id": _id(by, *whose, *posts),
        "type": "Flag",
        "actor": by,
        "content": one_line(facts_line(judged), CONTENT_MOST),
        "object": [*whose, *posts],
    }


def flags_jsonl(cases: Iterable[Judged], actor: str) -> Export:
    """The Flags in Lemmy's dialect, one a line."""
    lines, left_out = [], []
    for each in sorted(cases, key=lambda each: each.case.domain):
        try:
            flags = lemmy_flags(each.case, actor)
        except NotExpressible as error:
            left_out.append(LeftOut(each.case.domain, str(error)))
            continue
        lines += [orjson.dumps(flag, option=orjson.OPT_APPEND_NEWLINE) for flag in flags]
    return Export("flags.jsonl", "application/jsonl", b"".join(lines), tuple(left_out))


def _text(incident: Incident) -> str:
    rules = " ".join(one_line(each.sentence, 200) for each in incident.rules)
    hashes = ", ".join(f"sha256:{one_line(each, 64)}" for each in incident.sha256s[:3])
    return one_line(f"Abusive image, confirmed by {incident.confirmed_by}. {rules} {hashes}", CONTENT_MOST)


def _actor(actor: str) -> str:
    url = http_url(actor)
    if not url:
        raise NotExpressible(
            "say in whose name: the ActivityPub id of your instance's actor, such as https://my.example/"
        )
    return url


def _id(actor: str, *objects: str) -> str:
    """An id on the actor's own host, as receivers demand; the same for the same Flag."""
    digest = hashlib.sha256("\n".join((actor, *objects)).encode()).hexdigest()[:32]
    scheme, _, rest = actor.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/activities/flag/{digest}"
