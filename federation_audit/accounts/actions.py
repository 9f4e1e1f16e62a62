"""The log of actions: who did what, when, about what. It is appended to, never changed, and holds no secrets."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import Connection, insert

from federation_audit.accounts.networks import network_of
from federation_audit.accounts.tables import ACTIONS

_ABOUT_MOST = 255
_DETAIL_MOST = 4_000
NOBODY = ""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a user's name, or ``command line (NAME)``; and the network they come from, empty on this machine."""

    name: str
    network: str = ""

    @classmethod
    def at(cls, name: str, address: str | None) -> Self:
        """`name` as seen from a client's `address`."""
        return cls(name, network_of(address))


@dataclass(frozen=True, slots=True)
class Action:
    """One entry of the log."""

    id: int
    at: int
    who: str
    what: str
    about: str
    detail: Mapping[str, Any]
    network: str


def record(
    connection: Connection,
    actor: Actor,
    what: str,
    *,
    about: str = "",
    at: int,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append an entry in the caller's transaction, so that the action and its entry are both there or neither.

    `what` is a word or two, such as ``user added``; `about` names the thing, `detail` what else is to be known.
    """
    text = json.dumps(detail or {}, ensure_ascii=False, sort_keys=True, default=str)
    if len(text) > _DETAIL_MOST:
        raise ValueError(
            f"the detail of an action has at most {_DETAIL_MOST} characters; name what it is about instead"
        )
    connection.execute(
        insert(ACTIONS).values(
            at=at,
            who=actor.name,
            what=what,
            about=about[:_ABOUT_MOST].replace("\0", ""),
            detail=text,
            network=actor.network,
        )
    )


def as_action(row: Any) -> Action:
    """A row of the table as an entry."""
    return Action(row.id, row.at, row.who, row.what, row.about, json.loads(row.detail), row.network)
