"""The lists of a gateway in memory."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.frames.frame import Frame
from gateway.lists.definition import ListDefinition
from gateway.lists.hashes import HashSet
from gateway.lists.kinds import HashKind
from gateway.lists.lists import Lists
from gateway.lists.match import Match, strongest
from gateway.lists.settings import ListSettings
from gateway.lists.store import ListStore
from gateway.metrics import Metrics
from schemas.messages import Decision


def test_a_gateway_without_lists_does_without_numpy(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path; import gateway.service\n"
        "from gateway.lists.lists import Lists; from gateway.lists.settings import ListSettings\n"
        "from gateway.metrics import Metrics\n"
        f"lists = Lists(ListSettings(folder=Path({str(tmp_path)!r})), gateway='g', metrics=Metrics(deadline_s=3))\n"
        "asyncio.run(lists.start()); print('numpy' in sys.modules, 'PIL' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def match(name: str, decision: Decision, kind: HashKind = HashKind.PDQ, distance: int = 0) -> Match:
    return Match(name, "v", "a test", decision, "", kind, distance, 0)


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        (match("z", Decision.REVIEW, HashKind.SHA256), match("a", Decision.REJECT, distance=31)),
        (match("z", Decision.REJECT), match("a", Decision.REJECT, HashKind.MD5)),
        (match("z", Decision.REJECT, distance=9), match("a", Decision.REJECT, distance=8)),
        (match("a", Decision.REVIEW), match("b", Decision.REVIEW)),
    ],
    ids=["rejection", "the same bytes", "nearer", "by name"],
)
def test_the_stronger_match_decides_in_whichever_order_they_come(weaker: Match, stronger: Match) -> None:
    assert strongest([weaker, stronger]) == strongest([stronger, weaker]) == stronger
    assert strongest([]) is None


def frame(pdq: bytes, quality: int) -> Frame:
    return Frame(b"", 1, 1, 0, pdq, quality, bytes(7 * 32))


def test_a_frame_too_plain_is_not_compared_and_a_list_expires_at_its_moment(tmp_path: Path) -> None:
    listed = bytes(range(32))
    now = 1_000
    definition = ListDefinition(name="a", source="x", expires_at=2_000)
    ListStore(tmp_path).save(definition, HashSet.of({HashKind.PDQ: [listed]}))

    async def scenario() -> None:
        nonlocal now
        metrics = Metrics(deadline_s=3)
        lists = Lists(ListSettings(folder=tmp_path), gateway="g", metrics=metrics, clock_ms=lambda: now)
        await lists.start()
        try:
            assert await lists.match_frames([frame(listed, 49)]) == []
            (found,) = await lists.match_frames([frame(listed, 0), frame(b"\xff" * 32, 90), frame(listed, 50)])
            assert (found.frame, found.distance) == (2, 0)
            assert [each.name for each in await lists.match_hashes([listed])] == ["a"]
            generation = lists.generation
            now = 2_000
            assert await lists.match_frames([frame(listed, 90)]) == []
            assert lists.generation != generation
            assert "a: expired" in lists.part().detail
        finally:
            await lists.stop()

    asyncio.run(scenario())
