"""The pages about rescans: over HTTP, as pages, JSON and CSV."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from federation_audit.pages.service import Pages
from federation_audit.rescans.watching import RescanWatch, Seen
from federation_audit.store.recorder import Recorder
from schemas.broker import BrokerSettings
from schemas.clock import now_ms
from schemas.messages import Decision, Message, RescanState, RescanTier
from schemas.rescan_progress import Progress
from schemas.topics import DAY_MS
from tests.pages import running_pages
from tests.stores import FAR_BACK, again, judged, ordered, received, rejudged, seen, sha
from tests.unit.federation_audit.pages.test_pages import Visitor

ACCEPT, REVIEW, REJECT = Decision.ACCEPT, Decision.REVIEW, Decision.REJECT
NOW = now_ms()
DONE, RUNNING = "20261127-101010-d0d0", "20261128-101010-beef"
WHY = "the policy asks for scores that verdicts keep"


def fill(pages: Pages, *messages: Message) -> None:
    recorder = Recorder(pages.site.database, holder="test", retention_days=FAR_BACK)  # type: ignore[arg-type]
    recorder.record(received(messages), {})
    recorder.release()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    with running_pages(tmp_path_factory.mktemp("pages")) as pages:
        pages.site.rescans = RescanWatch(pages.site.database, BrokerSettings(bootstrap_servers="127.0.0.1:1"))
        done = ordered(rescan=DONE, at=NOW - DAY_MS, why=WHY, ordered_by="ada", policies={"default": "secret text"})
        fill(
            pages,
            done,
            ordered(RescanState.RUNNING, rescan=RUNNING, at=NOW - 60_000, tier=RescanTier.HASHES, ordered_by="bob"),
            *(judged(number, at=NOW - 2 * DAY_MS) for number in range(1, 61)),
            seen(1, "bad.example", at=NOW - 2 * DAY_MS),
            rejudged(
                *(again(number, after=REJECT, rules=["<b>gore</b>"]) for number in range(1, 56)),
                again(56, REJECT, ACCEPT),
                again(57),
                again(58, held="override"),
                rescan=DONE,
                at=NOW - DAY_MS,
            ),
        )
        yield pages


@pytest.fixture
def viewer(pages: Pages) -> Iterator[Visitor]:
    visitor = Visitor(pages.url)
    visitor.log_in("viewer")
    yield visitor
    visitor.http.close()


@pytest.fixture
def unseen(pages: Pages) -> Iterator[RescanWatch]:
    watch = pages.site.rescans
    assert watch is not None
    yield watch
    watch.seen = None


def test_every_rescan_is_listed_the_last_first(viewer: Visitor) -> None:
    rows = viewer.get("/rescans?format=json").json()["rows"]
    assert [(row["rescan"], row["state"], row["tier"], row["by"]) for row in rows] == [
        (RUNNING, "running", "hashes", "bob"),
        (DONE, "finished", "scores", "ada"),
    ]
    assert (rows[1]["why"], rows[1]["tenants"], rows[1]["done"], rows[0]["done"]) == (WHY, "all", "", None)
    only = viewer.get("/rescans?state=finished&format=csv").text
    assert [row["rescan"] for row in csv.DictReader(io.StringIO(only))] == [DONE]
    page = viewer.get("/rescans").text
    assert f'href="/rescans/{DONE}" data-opens' in page
    assert '<a href="/rescans" aria-current="page">Rescans</a>' in page


def test_one_that_is_finished_says_what_would_change_and_how_to_carry_it_out(viewer: Visitor) -> None:
    answer = viewer.get(f"/rescans/{DONE}")
    page = answer.text
    assert "<strong>56</strong> of 58 images would be decided differently." in page
    assert f"<code>fediwarden rescan apply {DONE}</code>" in page
    assert f"<code>fediwarden rescan report {DONE}</code>" in page
    assert "an override holds" in page and "&lt;b&gt;gore&lt;/b&gt;" in page
    assert "secret text" not in page and "<b>gore" not in page
    assert "<progress" not in page
    assert "refresh" not in answer.headers and "<form" not in page.split('id="said"')[1].split('id="flips"')[0]


def test_each_table_is_json_and_csv_as_well(viewer: Visitor) -> None:
    def rows(part: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = viewer.get(f"/rescans/{DONE}{part}?format=json").json()["rows"]
        return found

    assert rows("/decisions") == [
        {"before": "accept", "accept": 1, "review": 0, "reject": 55},
        {"before": "review", "accept": 0, "review": 0, "reject": 0},
        {"before": "reject", "accept": 1, "review": 0, "reject": 0},
    ]
    assert rows("/held") == [{"why": "an override holds", "images": 1}]
    assert rows("/rules") == [{"rule": "<b>gore</b>", "images": 55, "flips": 55}]
    assert rows("/instances") == [
        {"instance": "bad.example", "images": 1, "changes": ["1 accept → reject"]},
        {"instance": None, "images": 55, "changes": ["54 accept → reject", "1 reject → accept"]},
    ]
    flips = rows("")
    assert len(flips) == 56
    assert {row["sha256"] for row in flips} == {sha(number).hex() for number in range(1, 57)}
    assert [row["scan"] for row in flips if row["instance"] == ["bad.example"]] == ["scan-1"]
    text = viewer.get(f"/rescans/{DONE}?format=csv&change=reject-accept").text
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["scan"], row["before"], row["after"], row["instance"]) == ("scan-56", "reject", "accept", "")
    own = viewer.get(f"/rescans/{DONE}/rules").text
    assert f"<h1>Rules of rescan {DONE}</h1>" in own and "&lt;b&gt;gore&lt;/b&gt;" in own


def test_flips_have_parts(viewer: Visitor) -> None:
    second = viewer.get(f"/rescans/{DONE}?page=2").text
    assert "Rows 51 to 56 of 56" in second


def test_one_at_work_shows_how_far_it_is_and_loads_itself_anew(viewer: Visitor, unseen: RescanWatch) -> None:
    first = viewer.get(f"/rescans/{RUNNING}")
    assert "Kafka is being asked" in first.text
    now, job = now_ms(), ordered(RescanState.RUNNING, rescan=RUNNING)
    unseen.seen = Seen(job, Progress(1_250, 5_000, now, 25.0, 150.0), now - 90_000, now)
    answer = viewer.get(f"/rescans/{RUNNING}")
    assert '<progress max="5000" value="1250"' in answer.text
    assert f"<title>Rescan {RUNNING} · fediwarden</title>" in answer.text
    assert "<strong>1,250</strong> of 5,000 records are done, 3,750 left." in answer.text
    assert "25 records a second: 2\u00a0min left." in answer.text
    assert "It is worked on" in answer.text
    assert answer.headers["refresh"] == "5"
    assert f"fediwarden rescan cancel {RUNNING}" in answer.text
    still = viewer.get(f"/rescans/{RUNNING}?refresh=off")
    assert "refresh" not in still.headers and "does not load itself anew" in still.text
    assert "refresh" not in viewer.get(f"/rescans/{RUNNING}?page=2").headers
    assert viewer.get("/rescans?format=json").json()["rows"][0]["done"] == 0.25


def test_one_that_nobody_works_on_says_so_and_a_kafka_that_is_away_as_well(
    viewer: Visitor, unseen: RescanWatch
) -> None:
    now, job = now_ms(), ordered(RescanState.RUNNING, rescan=RUNNING)
    unseen.seen = Seen(job, Progress(5, 10, now, 0.0), now - 90_000, None)
    page = viewer.get(f"/rescans/{RUNNING}").text
    assert "Nobody works on it" in page and f"fediwarden rescan resume {RUNNING}" in page
    assert "Nothing moved in the last half minute" in page
    unseen.seen = Seen(job, None, 0, None, fault="127.0.0.1:1 is away")
    page = viewer.get(f"/rescans/{RUNNING}").text
    assert "Kafka does not tell how far it is: 127.0.0.1:1 is away" in page and "<progress" not in page


def test_what_is_not_there_is_not_found(viewer: Visitor) -> None:
    for path in ("/rescans/nobody", "/rescans/nobody/rules", f"/rescans/{DONE}/pixels"):
        assert viewer.get(path).status_code == 404


def test_visitors_who_are_not_logged_in_see_nothing(pages: Pages) -> None:
    with httpx.Client(base_url=pages.url) as client:
        for path in ("/rescans", f"/rescans/{DONE}", f"/rescans/{DONE}/rules"):
            assert client.get(path).headers["location"].startswith("/login")


def test_metrics_are_beside_the_pages_and_say_nothing_of_rescans_without_kafka(pages: Pages) -> None:
    answer = httpx.get(f"{pages.url}/metrics")
    assert answer.status_code == 200
    assert not [line for line in answer.text.splitlines() if line.startswith("fediwarden_rescan")]
    assert httpx.get(f"{pages.url}/metrics", headers={"x-forwarded-for": "203.0.113.9"}).status_code == 403


def test_what_was_said_long_ago_is_said_to_be_gone(tmp_path: Path) -> None:
    with running_pages(tmp_path) as pages:
        fill(pages, ordered(RescanState.APPLIED, rescan="old", at=NOW - 100 * DAY_MS))
        visitor = Visitor(pages.url)
        visitor.log_in("viewer")
        page = visitor.get("/rescans/old").text
        visitor.http.close()
    assert "What it said of images is not kept any more" in page
    assert "fediwarden rescan undo old" in page
