"""What can be exported."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from schemas.messages import ActorForgotten, Message, OriginObserved, OverrideSet, Verdict
from schemas.topics import ORIGINS, OVERRIDES, VERDICTS, TopicSpec


def _key_of(message: Message) -> bytes:
    match message:
        case Verdict():
            return message.sha256
        case OverrideSet():
            return message.override_id.encode("ascii")
        case OriginObserved():
            return message.sha256 or (message.url or message.alias).encode()
        case ActorForgotten():
            return message.pseudonym
    raise AssertionError(type(message))


def _judged_at(message: Message) -> int:
    match message:
        case Verdict():
            return message.judged_at
        case OverrideSet():
            return message.set_at
        case OriginObserved():
            return message.observed_at
        case ActorForgotten():
            return message.forgotten_at
    raise AssertionError(type(message))


@dataclass(frozen=True, slots=True)
class Kind:
    """One topic as a file: `messages` are the types that it holds, the commonest first.

    `key` is the key of a message's record, `time` the message's own time, in milliseconds since the epoch.
    """

    name: str
    topic: TopicSpec
    messages: tuple[type[Message], ...]
    key: Callable[[Message], bytes] = _key_of
    time: Callable[[Message], int] = _judged_at


VERDICT_ROWS: Final = Kind("verdicts", VERDICTS, (Verdict,))
OVERRIDE_ROWS: Final = Kind("overrides", OVERRIDES, (OverrideSet,))
ORIGIN_ROWS: Final = Kind("origins", ORIGINS, (OriginObserved, ActorForgotten))

KINDS: Final = {kind.name: kind for kind in (VERDICT_ROWS, OVERRIDE_ROWS, ORIGIN_ROWS)}
"""By the name that a file's first line gives."""
