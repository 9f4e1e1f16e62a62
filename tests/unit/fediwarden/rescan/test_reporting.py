import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from fediwarden.rescan.outcome import Outcome, Point
from fediwarden.rescan.reporting import as_plain, make_page
from fediwarden.rescan.score_plot import draw_scores
from schemas.messages import RescanState, RescanTier, RuleFired
from tests.unit.fediwarden.rescan.rescans import ACCEPT, REJECT, REVIEW, again, job, judged, live, sha

KNOWN = {("default", sha(1)): {"a.example"}}


def outcome(**more: object) -> Outcome:
    vectors = job(RescanTier.VECTORS, **more)
    hostile = (RuleFired(name="<script>alert(1)</script>", decision=REJECT, frame=0),)
    log = judged(
        again(1, REJECT, at=0, scores={"m/nsfw": 0.75}, rules=hostile),
        again(2, ACCEPT, at=1, scores={"m/nsfw": 0.1}),
        again(3, ACCEPT, at=2, scores={"m/other": 0.2}),
        again(4, None, at=3, held="unreadable"),
        of=vectors,
    )
    log.add(live(1, ACCEPT), live(2, REJECT), live(3, ACCEPT), live(4, ACCEPT))
    return log.outcome()


def test_the_json_holds_the_counts_and_every_flip() -> None:
    plain = as_plain(outcome(), KNOWN)
    assert (plain["judged"], plain["counted"], plain["changed"]) == (4, 3, 2)
    assert (plain["newly_refused"], plain["newly_accepted"], plain["held"]) == (1, 1, {"unreadable": 1})
    assert plain["decisions"] == [
        {"before": "accept", "after": "accept", "images": 1},
        {"before": "accept", "after": "reject", "images": 1},
        {"before": "reject", "after": "accept", "images": 1},
    ]
    assert [(each["scan_id"], each["after"], each["instances"]) for each in plain["flips"]] == [
        ("scan-1", "reject", ["a.example"]),
        ("scan-2", "accept", []),
    ]
    assert {each["instance"] for each in plain["instances"]} == {"a.example", None}
    assert plain["scores"] == {"m/nsfw": [[0.25, 0.75], [0.25, 0.1]], "m/other": [[None, 0.2]]}


def test_without_a_store_to_ask_instances_are_not_known_rather_than_none() -> None:
    assert as_plain(outcome(), None)["instances"] is None
    assert "Not known: the audit's store could not be asked." in make_page(outcome(), None)


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_is_whole_in_itself_and_runs_nothing() -> None:
    page = make_page(outcome(), KNOWN)
    parsed = Elements()
    parsed.feed(page)
    tags = {tag for tag, _ in parsed.found}
    assert not tags & {"script", "link", "img", "iframe", "object", "form"}
    names = {name for _, attributes in parsed.found for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "href", "style")}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "url(" not in page


def test_the_page_shows_the_counts_the_flips_and_a_plot_for_each_label() -> None:
    page = make_page(outcome(), KNOWN)
    assert "2 of 3 images would be decided differently" in page
    assert re.search(
        r'<th scope="row">accept</th><td class="n">1</td><td class="n">0</td><td class="n flip up">1</td>', page
    )
    assert "scan-1" in page and sha(1).hex() in page and "a.example" in page
    assert page.count("<svg") == 2
    assert "not finished" not in page
    assert "not finished" in make_page(outcome(state=RescanState.RUNNING), KNOWN)


def test_of_a_rescan_without_new_scores_the_page_says_so() -> None:
    log = judged(again(1, REJECT, at=0))
    log.add(live(1, ACCEPT))
    page = make_page(log.outcome(), {})
    assert "No score was made anew: the images were judged from scores" in page


@pytest.mark.parametrize(
    ("point", "name"),
    [
        (Point(0.0, 1.0, ACCEPT, REJECT), "stricter"),
        (Point(1.0, 0.0, REJECT, REVIEW), "milder"),
        (Point(0.5, 0.5, ACCEPT, ACCEPT), "same"),
        (Point(None, 0.5, REVIEW, REJECT), "stricter"),
    ],
)
def test_each_image_is_a_mark_within_the_plot_that_shows_which_way_it_went(point: Point, name: str) -> None:
    drawn = ElementTree.fromstring(draw_scores('m/<"&>', [point]))
    marks = [each for each in drawn if each.get("class") in ("stricter", "milder", "same")]
    assert [each.get("class") for each in marks] == [name]
    at = marks[0].get("cx") or (marks[0].get("d") or "")[1:].split()[0]
    assert 0 < float(at) < float(drawn.get("width", 0))
    assert (drawn.get("aria-label") or "").startswith('m/<"&>: old scores against new ones of 1 images')
