"""What an image is recognised as before any scanner sees it: by its bytes, and by the look of its frames."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.frames.frame import FrameSet
from gateway.lists.lists import Lists
from gateway.lists.match import Match, strongest
from schemas.messages import AnsweredBy, Decision, RuleFired

_CHECKED_MOST = 20_000


@dataclass(frozen=True, slots=True)
class Recognised:
    """Why an image needs no scanner (`final`), or what its decision is at least.

    `hash_list` is ``name@version``. `rule` names the list as verdicts name a policy's rules.
    """

    by: AnsweredBy
    decision: Decision
    reason: str
    rule: RuleFired
    hash_list: str

    @property
    def final(self) -> bool:
        """Whether nobody else is asked."""
        return self.decision is Decision.REJECT


class Recognition:
    """Asks the lists. `by_bytes` comes before frames are made, `by_frames` before they are handed on.

    What `by_bytes` gives is handed to the later calls, which give the stronger of the two.
    """

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        self._checked: OrderedDict[bytes, tuple[object, Recognised | None]] = OrderedDict()

    @property
    def needs_md5(self) -> bool:
        """Whether a body's md5 is wanted."""
        return self._lists.need_md5

    def by_bytes(self, sha256: bytes, md5: bytes | None) -> Recognised | None:
        """What these bytes are known as; microseconds."""
        matches = self._lists.match_bytes(sha256, md5)
        if matches:
            self._lists.note(sha256, matches)
        return _recognised(matches)

    async def by_frames(self, sha256: bytes, frames: FrameSet, before: Recognised | None) -> Recognised | None:
        """What the picture is known as."""
        matches = await self._lists.match_frames(frames.frames)
        self._lists.note(sha256, matches)
        return _stronger(before, self._remember(sha256, _recognised(matches)))

    async def by_hashes(self, sha256: bytes, hashes: Sequence[bytes], before: Recognised | None) -> Recognised | None:
        """What a picture judged before is known as now: lists change. `hashes` are those fit for matching."""
        if not self._lists.generation:
            return before
        remembered = self._checked.get(sha256)
        if remembered is not None and remembered[0] == self._lists.generation:
            self._checked.move_to_end(sha256)
            return _stronger(before, remembered[1])
        matches = await self._lists.match_hashes(hashes)
        if matches:
            self._lists.note(sha256, matches)
        return _stronger(before, self._remember(sha256, _recognised(matches)))

    def _remember(self, sha256: bytes, found: Recognised | None) -> Recognised | None:
        self._checked[sha256] = (self._lists.generation, found)
        self._checked.move_to_end(sha256)
        if len(self._checked) > _CHECKED_MOST:
            self._checked.popitem(last=False)
        return found


def _recognised(matches: Sequence[Match]) -> Recognised | None:
    match = strongest(matches)
    if match is None:
        return None
    how = f"{match.distance} of 256 bits off" if match.kind == "pdq" else f"the same {match.kind}"
    why = f": {match.reason}" if match.reason else ""
    return Recognised(
        by=AnsweredBy.LIST,
        decision=match.decision,
        reason=f"on the list {match.name}@{match.version} ({match.origin}), {how}{why}",
        rule=RuleFired(name=f"list:{match.name}", decision=match.decision, frame=match.frame),
        hash_list=f"{match.name}@{match.version}",
    )


def _stronger(one: Recognised | None, other: Recognised | None) -> Recognised | None:
    if one is None or (other is not None and other.final and not one.final):
        return other
    return one
