"""Whom a token names, as the software's own database names them, so that one person is one actor.

A token has the user's number on its instance and nothing else; the database, and whoever else sees the person's posts,
has an ActivityPub id. Pseudonyms of the two cannot be compared. Where the database can be asked, an uploader goes by
the id therefore; where it does not answer, by the number.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from schemas.messages import OriginObserved
from schemas.pseudonyms import Pseudonym, Pseudonyms

Value = TypeVar("Value")

AskActor = Callable[[str], Awaitable[str | None]]
"""The ActivityPub id of the local user with a number, in the form that is hashed; None where it is not known (now).
Answers within seconds, and raises nothing."""

_MOST = 10_000


class Uploaders:
    """The uploaders of one tenant: numbers until they are asked for, pseudonyms after that. In memory alone."""

    def __init__(self, pseudonyms: Pseudonyms, ask: AskActor, *, most: int = _MOST) -> None:
        self._pseudonyms = pseudonyms
        self._ask = ask
        self._most = most
        self._numbers: OrderedDict[Pseudonym, str] = OrderedDict()
        self._known: OrderedDict[Pseudonym, Pseudonym] = OrderedDict()

    def note(self, pseudonym: Pseudonym, number: str) -> None:
        """Remember whose pseudonym that is, until it has been asked for."""
        if pseudonym not in self._known:
            _put(self._numbers, pseudonym, number, self._most)

    async def settle(self, origin: OriginObserved) -> OriginObserved:
        """The origin with its author by ActivityPub id, where that can be known; else as it is."""
        author = origin.author
        if author is None or not author.pseudonym:
            return origin
        before = Pseudonym(author.key_id, author.pseudonym)
        after = self._known.get(before) or await self._find(before)
        if after is None:
            return origin
        return origin.model_copy(update={"author": author.model_copy(update={"pseudonym": after.value})})

    async def _find(self, before: Pseudonym) -> Pseudonym | None:
        number = self._numbers.get(before)
        actor_id = None if number is None else await self._ask(number)
        if actor_id is None:
            return None
        # Under the same quarter's key, whichever is in use by now.
        after = next((each for each in self._pseudonyms.every(actor_id) if each.key_id == before.key_id), None)
        if after is not None:
            _put(self._known, before, after, self._most)
            self._numbers.pop(before, None)
        return after


def _put(kept: OrderedDict[Pseudonym, Value], key: Pseudonym, value: Value, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
