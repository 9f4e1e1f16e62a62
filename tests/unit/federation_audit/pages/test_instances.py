"""Overview and instances over HTTP, against the store that they are made from."""

import re
import time
from collections.abc import Iterator
from datetime import date
from html import unescape

import pytest
from sqlalchemy import func, insert, select

from federation_audit.deciding.tables import DECISIONS, LETTERS
from federation_audit.pages.funnel import ALONE_MOST, draw_funnel, instance_path, make_funnel
from federation_audit.pages.service import Pages
from federation_audit.reviewing.queue import read_waiting as read_queue
from federation_audit.store.engine import Store
from federation_audit.store.identities import TextKind
from federation_audit.store.migrating import open_store
from federation_audit.store.periods import as_day
from federation_audit.store.queries import read_days, read_flagged, read_incidents
from federation_audit.store.state import write_state
from federation_audit.store.tables import FLAGS, PERIODS, STRATA, TEXTS
from schemas.clock import now_ms
from schemas.messages import AnsweredBy, Decision, Stage
from schemas.topics import DAY_MS
from tests.fediverse import HOSTILE, LEVELS, SECOND
from tests.pages import running_pages
from tests.stores import judged, removed, seen, write
from tests.unit.federation_audit.pages.test_pages import Visitor

BEHIND = ("exposure", "weeks", "course", "incidents", "accounts", "communities", "hosts")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    with running_pages(tmp_path_factory.mktemp("pages"), filled=True) as pages:
        yield pages


@pytest.fixture(scope="module")
def viewer(pages: Pages) -> Iterator[Visitor]:
    visitor = Visitor(pages.url)
    assert visitor.log_in("viewer").headers["location"] == "/"
    yield visitor
    visitor.http.close()


def rows_of(viewer: Visitor, path: str) -> list[dict[str, object]]:
    answer = viewer.get(path, headers={"accept": "application/json"})
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, object]] = answer.json()["rows"]
    return rows


def test_it_is_the_start_page(viewer: Visitor) -> None:
    assert viewer.get("/").headers["location"] == "/overview"


def test_the_overview_counts_what_the_store_counts(viewer: Visitor, pages: Pages) -> None:
    store = pages.site.database
    assert isinstance(store, Store)
    write(store, [removed(image, at=now_ms() - DAY_MS) for image in (1, 2, 3)]).release()
    with store.reading() as connection:
        counted = read_days(connection)

    def media(*measures: str, tenant: str = "") -> int:
        return sum(n for _, of, what, n in counted if what.startswith(measures) and tenant in ("", of))

    for query, tenant in (("?range=all", ""), (f"?range=all&tenant={SECOND}", SECOND)):
        days = rows_of(viewer, f"/overview{query}")

        def total(key: str, days: list[dict[str, object]] = days) -> int:
            return sum(int(str(day[key])) for day in days)

        assert total("images") == media("judged:", tenant=tenant) + sum(
            n for _, of, what, n in counted if what == "unjudged" and tenant in ("", of)
        )
        assert total("flagged") == media("judged:review", "judged:reject", tenant=tenant)
        assert total("judged_late") == media("judged_late", tenant=tenant)
        assert total("removed") == media("enforced:removed", tenant=tenant)
        assert total("failures") == media("failed:", tenant=tenant)
        for by in AnsweredBy:
            assert total(by.value) == media(f"answered:{by}:", tenant=tenant), by
    assert media("judged:", tenant=SECOND) and media("enforced:removed") and media("failed:")


def test_ranges_are_of_so_many_days_up_to_today(viewer: Visitor) -> None:
    today = date.today().isoformat()
    for query, many in (("?range=7", 7), ("", 30), ("?range=90", 90)):
        days = rows_of(viewer, f"/overview{query}")
        assert len(days) == many and str(days[0]["day"]) >= today
        assert len({day["day"] for day in days}) == many
    # A plot has a bar for each day that has something, and says it in words.
    text = viewer.get("/overview?range=7").text
    plot = re.search(r"<svg.*?<title>Images by day</title>.*?</svg>", text, re.DOTALL)
    assert plot
    numbers = [int(each["images"]) for each in rows_of(viewer, "/overview?range=7")]  # type: ignore[call-overload]
    assert plot[0].count("<rect") == sum(number > 0 for number in numbers)
    assert f"{sum(numbers):,} in 7 days" in plot[0]


@pytest.mark.parametrize(
    ("ago_ms", "lag", "said"),
    [
        (2_000, 0, "has read everything"),
        (2_000, 1, "1 record is yet to be read"),
        (2_000, 31_415, "31,415 records are yet to be read"),
        (2_000, -1, "Kafka does not say"),
        (180_000, 0, "not running since"),
    ],
)
def test_it_says_how_far_the_recorder_is(viewer: Visitor, pages: Pages, ago_ms: int, lag: int, said: str) -> None:
    with pages.site.database.writing() as connection:
        write_state(connection, recorded_at=now_ms() - ago_ms, lag=lag)
    text = viewer.get("/overview").text
    assert said in text
    assert ("notice warn" in text) == (ago_ms > 60_000)


def test_it_says_what_judges_now(viewer: Visitor, pages: Pages) -> None:
    with pages.site.database.reading() as connection:
        newest = connection.execute(select(func.max(PERIODS.c.first_day))).scalar_one()
        judging = select(STRATA).where(
            STRATA.c.models != "",
            STRATA.c.id.in_(select(PERIODS.c.stratum_id).where(PERIODS.c.first_day == newest)),
        )
        strata = connection.execute(judging).all()
    text = viewer.get("/overview").text
    assert strata
    for row in strata:
        assert row.policy in text and all(part in text for part in re.findall(r'"([^"]+)"', row.models))


def test_what_waits_is_counted_and_decided_is_decided(viewer: Visitor, pages: Pages) -> None:
    text = viewer.get("/overview").text
    waits = text[text.index("What waits") : text.index("What was done")]
    assert "1 recommendation without" in waits and 'href="/instances/bad.example"' in waits
    found = re.search(r"([\d,]+) rows waiting for review", waits)
    lists = pages.site.surroundings.audit.verified_lists
    with pages.site.database.reading() as connection:
        flagged = connection.execute(select(func.count()).where(FLAGS.c.now == 1)).scalar_one()
        queue = read_queue(connection, "reviewer", verified_lists=lists)[1]
    assert found and 0 < int(found[1].replace(",", "")) < flagged  # some are settled
    assert int(found[1].replace(",", "")) == queue
    day = now_ms() // DAY_MS
    decision = {
        "action": "contact",
        "reason": "x",
        "level": 3,
        "decided_by": "admin",
        "decided_at": now_ms() - 60_000,
        "ended_at": None,
    }
    letter = {
        "domain": "bad.example",
        "sent_day": day - 3,
        "answered_day": None,
        "way": "mail",
        "noted_by": "admin",
        "noted_at": now_ms(),
    }
    with pages.site.database.writing() as connection:
        connection.execute(insert(DECISIONS), decision | {"domain": "bad.example", "until": now_ms() + 3 * DAY_MS})
        connection.execute(insert(DECISIONS), decision | {"domain": "raid.example", "until": now_ms() - DAY_MS})
        connection.execute(insert(LETTERS), letter)
    text = viewer.get("/overview").text
    assert "recommendation without" not in text
    assert re.search(r"end within 14 days: <a [^>]*>bad\.example", text)
    assert re.search(r"run out: <a [^>]*>raid\.example", text)
    assert [row["instance"] for row in rows_of(viewer, "/instances?decision=contact")] == ["bad.example"]
    assert [row["instance"] for row in rows_of(viewer, "/instances?decision=ended")] == ["raid.example"]
    assert len(rows_of(viewer, "/instances?decision=open")) == len(rows_of(viewer, "/instances")) - 2
    deeds = [row["deeds"] for row in rows_of(viewer, "/instances/bad.example/weeks")]
    assert any("wrote to its admins (admin)" in str(each) for each in deeds)
    assert any("decided: contact (admin)" in str(each) for each in deeds)


def test_the_table_is_by_level_then_name_and_cannot_be_by_counts(viewer: Visitor, pages: Pages) -> None:
    assessment = pages.site.assessor.newest().assessment
    by_level = [each.instance for each in sorted(assessment, key=lambda each: (-each.level, each.instance))]
    found = rows_of(viewer, "/instances")
    assert [row["instance"] for row in found] == by_level
    assert [row["level"] for row in found[:4]] == ["recommend", "restrict", "restrict", "watch"]
    for key in ("images", "confirmed", "ratio"):  # what is no order is passed over
        assert rows_of(viewer, f"/instances?sort=-{key}") == found
        assert f"sort=-{key}" not in viewer.get("/instances").text
    for row in found:
        each = assessment[str(row["instance"])]
        assert (row["images"], row["confirmed"]) == (each.triage.media, len(each.decision.incidents))
        if each.triage.media < assessment.rules.least_media:  # a share of so few is no share
            assert row["ratio"] is None and row["chance"] is None
        else:
            assert row["ratio"] == {"value": each.triage.ratio, "low": each.triage.low, "high": each.triage.high}
            assert row["chance"] == each.triage.chance
        assert row["reason"] == each.reasons[0]


def test_filters_and_searches_of_instances(viewer: Visitor) -> None:
    levels = {name: level for name, level in LEVELS.items() if level == 2}
    assert {row["instance"] for row in rows_of(viewer, "/instances?level=2")} == set(levels)
    assert [row["instance"] for row in rows_of(viewer, "/instances?q=bad")] == ["bad.example"]
    for typed in ("BÜCHER.example", "xn--bcher", "bücher.example:443"):
        found = viewer.get("/instances", params={"q": typed, "format": "json"}).json()["rows"]
        assert [row["instance"] for row in found] == ["xn--bcher-kva.example"], typed
    by_name = [row["instance"] for row in rows_of(viewer, "/instances?sort=-instance")]
    assert by_name == sorted(map(str, by_name), reverse=True)
    hostile = viewer.get("/instances", params={"q": "\"><script>alert(1)</script>'"})
    assert hostile.status_code == 200 and "<script>alert" not in hostile.text and "No instance matches" in hostile.text


def test_the_unattributed_share_stands_above_the_table(viewer: Visitor, pages: Pages) -> None:
    assessment = pages.site.assessor.newest().assessment
    share = assessment.unattributed_media / assessment.table.media.sum()
    text = unescape(viewer.get("/instances").text)
    assert 0 < share < 1
    assert f"Of {share * 100:.2g}\N{NO-BREAK SPACE}% of all images the author's instance is not known" in text


def test_the_funnel_has_a_link_for_each_that_stands_out(viewer: Visitor, pages: Pages) -> None:
    assessment = pages.site.assessor.newest().assessment
    funnel = make_funnel(assessment)
    plot = str(draw_funnel(funnel))
    assert plot in viewer.get("/instances").text
    assert not funnel.crowded
    for point in funnel.points:
        assert f'href="{instance_path(point.of.instance)}" aria-label="{point.of.instance}: ' in plot
    drawn = {point.of.instance for point in funnel.points}
    assert drawn >= set(LEVELS) and "tiny0.example" not in drawn
    assert len(drawn) + funnel.small == sum(each.triage.expected > 0 for each in assessment)
    assert len(re.findall(r"<text class=\"name", plot)) >= 3
    for level in {each.level for each in assessment}:
        assert f'class="point level-{int(level)}"' in plot
    assert "style=" not in plot


def test_one_instance_says_why_and_opens_its_numbers(viewer: Visitor, pages: Pages) -> None:
    found = pages.site.assessor.newest().assessment["bad.example"]
    text = unescape(viewer.get("/instances/bad.example").text)
    for sentence in (*found.reasons, *found.weaknesses):
        assert sentence in text
    numbers = {row["number"]: row["value"] for row in rows_of(viewer, "/instances/bad.example")}
    assert numbers["Images"] == found.triage.media and numbers["Usual"] == found.triage.expected
    exposure = rows_of(viewer, "/instances/bad.example/exposure")
    assert sum(int(str(row["images"])) for row in exposure) == found.triage.media
    assert sum(int(str(row["flagged"])) for row in exposure) == found.triage.flagged == numbers["Flagged"]
    assert sum(float(str(row["expected"])) for row in exposure) == pytest.approx(found.triage.expected)
    decided = [row for row in exposure if row["in_decision"] == "yes"]
    assert sum(float(str(row["tolerable"])) for row in decided) == pytest.approx(numbers["Tolerable"])
    weeks = rows_of(viewer, "/instances/bad.example/weeks")
    assert sum(int(str(row["images"])) for row in weeks) == found.triage.media


def test_the_course_of_the_numbers_ends_with_those_of_now(viewer: Visitor, pages: Pages) -> None:
    found = pages.site.assessor.newest().assessment["bad.example"]
    course = rows_of(viewer, "/instances/bad.example/course")
    assert len(course) > 5 and course[0]["e_value"] == pytest.approx(found.decision.e_value)
    assert course[0]["at"] == found.context.at.isoformat() and course[0]["images"] == found.triage.media
    text = viewer.get("/instances/bad.example").text
    for title in ("Times the usual, with its interval", "e-value"):
        plot = re.search(rf"<svg[^>]*><title>{title}</title>.*?</svg>", text, re.DOTALL)
        assert plot and 0 < plot[0].count('class="spot"') <= len(course)


def test_incidents_are_those_of_the_store_and_those_confirmed_those_assessed(viewer: Visitor, pages: Pages) -> None:
    for domain in ("bad.example", "raid.example", "listed.example", "flooded.example", "drawings.example"):
        found = pages.site.assessor.newest().assessment[domain]
        with pages.site.database.reading() as connection:
            stored = read_incidents(connection, domain)
            media = {each.sha256 for each in read_flagged(connection, domain) if each.now}
        rows = rows_of(viewer, f"/instances/{domain}/incidents")
        assert sorted(str(row["day"]) for row in rows) == sorted(
            date.fromordinal(date(1970, 1, 1).toordinal() + each.day).isoformat() for each in stored
        )
        assert sum(int(str(row["images"])) for row in rows) == sum(len(each.media) for each in stored) >= len(media)
        since = found.decision.since.isoformat()
        confirmed = [row for row in rows if row["confirmed"] != "nobody yet" and str(row["day"]) >= since]
        assert len(confirmed) == len(found.decision.incidents)
        accounts = rows_of(viewer, f"/instances/{domain}/accounts")
        assert sum(int(str(row["incidents"])) for row in accounts) == len(rows)
        actors = {each.actor[1].hex()[:8] for each in stored if each.actor}
        assert {row["account"] for row in accounts if row["account"]} == actors
    assert {row["confirmed"] for row in rows_of(viewer, "/instances/listed.example/incidents")} >= {
        "a verified hash list"
    }


def test_hosts_and_communities_are_not_authors(viewer: Visitor) -> None:
    text = viewer.get("/instances/pixhost.example").text
    assert "nothing is said of it" in text and "recommend" not in text
    roles = text[text.index("Three roles") :]
    counts = [int(each.replace(",", "")) for each in re.findall(r"<dd>([\d,]+)", roles)]
    assert counts[0] == 0 and counts[2] > 100
    assert "pixhost.example" in {row["host"] for row in rows_of(viewer, "/instances/bad.example/hosts")}


def test_hostile_addresses_are_shown_and_lead_nowhere(viewer: Visitor) -> None:
    text = viewer.get("/instances/hostile.example").text
    assert "<script>alert" not in text
    assert 'href="javascript:' not in text and "<img" not in text
    assert "U+202E" in text and "\N{RIGHT-TO-LEFT OVERRIDE}" not in re.sub(r'href="[^"]*"', "", text)
    rows = rows_of(viewer, "/instances/hostile.example/incidents")
    posts = {post for row in rows for post in row["posts"] or ()}  # type: ignore[attr-defined]
    assert posts <= set(HOSTILE) and len(posts) >= 3  # JSON has them unchanged
    links = re.findall(r'<a class="outside" href="([^"]*)" rel="([^"]*)"', text)
    assert links and all(unescape(href).startswith("https://") and "noreferrer" in rel for href, rel in links)
    sheet = viewer.get("/instances/hostile.example/incidents?format=csv").text
    assert "'=HYPERLINK" in sheet and ',"=HYPERLINK' not in sheet


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("BAD.example", "bad.example"),
        ("bad.example:443", "bad.example"),
        ("bad.example.", "bad.example"),
        ("B%C3%9CCHER.example", "xn--bcher-kva.example"),
    ],
)
def test_other_spellings_lead_to_the_one(viewer: Visitor, asked: str, shown: str) -> None:
    answer = viewer.get(f"/instances/{asked}")
    assert (answer.status_code, answer.headers["location"]) == (308, f"/instances/{shown}")
    answer = viewer.get(f"/instances/{asked}/incidents?format=json")
    assert answer.headers["location"] == f"/instances/{shown}/incidents?format=json"


@pytest.mark.parametrize(
    "asked",
    [
        "nowhere.example",
        "[::1]",
        "[2001:db8::7]",
        "203.0.113.7",
        "expyuzz4wqqyqhjn.onion",
        "%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "a%20b",
        "%E2%80%AEelpmaxe",
        "a" * 3_000,
    ],
)
def test_what_nobody_knows_is_404_in_plain_words(viewer: Visitor, asked: str) -> None:
    for below in ("", "/incidents"):
        answer = viewer.get(f"/instances/{asked}{below}")
        assert answer.status_code == 404, asked
        assert "<script>alert" not in answer.text and "<h1>This is not here</h1>" in answer.text
    assert viewer.get("/instances/nowhere.example?format=json").json()["remedy"].startswith("Nothing is known of")


def test_every_page_of_an_instance_is_also_json_and_csv(viewer: Visitor) -> None:
    for below in ("", *(f"/{each}" for each in BEHIND)):
        path = f"/instances/bad.example{below}"
        assert rows_of(viewer, path)
        sheet = viewer.get(path, params={"format": "csv"})
        assert sheet.headers["content-type"].startswith("text/csv") and sheet.text.count("\r\n") > 1
        assert re.search(r'filename="bad\.example-\w+\.csv"', sheet.headers["content-disposition"])
        assert "style=" not in viewer.get(path).text


def test_who_is_found_by_lists_alone_is_said_to_stand_at_nought(tmp_path) -> None:
    said = "Lists of known images found something from here"
    with running_pages(tmp_path, filled=True) as pages:
        store = pages.site.database
        assert isinstance(store, Store)
        hit = 10_000
        harmless = [
            each for image in range(hit + 1, hit + 211) for each in (judged(image), seen(image, "lists.example"))
        ]
        found = judged(hit, Decision.REJECT, stage=Stage.LIST, hash_list="others@1", looks=[])
        write(store, [*harmless, found, seen(hit, "lists.example", actor="a")]).release()
        visitor = Visitor(pages.url)
        visitor.log_in("viewer")
        assert "1 at 0 % has images that lists of known images found" in visitor.get("/instances").text
        [point] = [
            each
            for each in make_funnel(pages.site.assessor.newest().assessment).points
            if each.of.instance == "lists.example"
        ]
        assert point.rate == 0
        assert said in visitor.get("/instances/lists.example").text
        for other in ("listed.example", "bad.example", "elder.example"):  # models flagged; lists found nothing
            assert said not in visitor.get(f"/instances/{other}").text
        visitor.http.close()


def test_what_only_lists_found_is_said_of_none_where_there_is_none(viewer: Visitor) -> None:
    assert "lists of known images found" not in viewer.get("/instances").text


def test_it_says_when_more_was_seen_than_is_looked_at(viewer: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation_audit.assessing.traces._kept._most", 0)
    pages = ("", "/incidents", "/hosts", "/communities")
    older, more = "there are older ones", "seen more often than is looked at"
    whole = rows_of(viewer, "/instances/bad.example/incidents")
    sightings = sum(int(str(row["images"])) for row in whole)
    monkeypatch.setattr("federation_audit.assessing.traces.SIGHTINGS_MOST", sightings)
    monkeypatch.setattr("federation_audit.assessing.traces.ORIGINS_MOST", sightings)
    for below in pages:
        text = viewer.get(f"/instances/bad.example{below}").text
        assert older not in text and more not in text, below
    assert rows_of(viewer, "/instances/bad.example/incidents") == whole
    monkeypatch.setattr("federation_audit.assessing.traces.ORIGINS_MOST", sightings - 1)
    for below in pages:
        text = viewer.get(f"/instances/bad.example{below}").text
        assert older not in text and more in text, below
    cut = rows_of(viewer, "/instances/bad.example/incidents")
    assert [row["posts"] for row in cut[:-1]] == [row["posts"] for row in whole[:-1]]  # the oldest lacks one
    monkeypatch.setattr("federation_audit.assessing.traces.SIGHTINGS_MOST", sightings - 1)
    for below in pages:
        assert older in viewer.get(f"/instances/bad.example{below}").text, below


def test_a_report_says_when_more_was_seen_than_is_looked_at(viewer: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    more, path = "seen more often than is looked at", "/decisions/bad.example/report"
    assert more not in viewer.get(path).text
    monkeypatch.setattr("federation_audit.assessing.case.ORIGINS_MOST", 3)
    assert more in viewer.get(path).text


def test_a_page_shows_twenty_posts_of_an_incident_and_says_that_there_are_more(tmp_path) -> None:
    with running_pages(tmp_path, filled=True) as pages:
        store = pages.site.database
        assert isinstance(store, Store)
        posts = [f"https://loud.example/post/{number}" for number in range(25)]
        write(
            store,
            [judged(10_000, Decision.REJECT), *(seen(10_000, "loud.example", actor="a", post=each) for each in posts)],
        ).release()
        visitor = Visitor(pages.url)
        visitor.log_in("viewer")
        path = "/instances/loud.example/incidents"
        [row] = rows_of(visitor, path)
        assert row["posts"] == sorted(posts)
        text = visitor.get(path).text
        assert text.count('class="outside"') == 20 and "and 5 more" in text
        visitor.http.close()


def test_an_empty_store_is_shown_as_one(tmp_path) -> None:
    with running_pages(tmp_path) as pages:
        visitor = Visitor(pages.url)
        visitor.log_in("viewer")
        text = visitor.get("/overview").text
        assert "No recorder has written" in text and "Nothing has been judged yet" in text
        assert "Nobody has to do anything" in text
        assert visitor.get("/overview?range=all").status_code == 200
        text = visitor.get("/instances").text
        assert "Nothing has been judged yet" in text and '<svg class="plot' not in text
        assert visitor.get("/instances/bad.example").status_code == 404
        visitor.http.close()


def test_twenty_thousand_instances_are_shown_in_time_and_within_the_limits_as_places(tmp_path) -> None:
    """Rows of periods as a recorder leaves them: one in fifty stands out. Time is that of the processor, so that a busy
    machine changes little."""
    many, day = 20_000, now_ms() // DAY_MS
    store = open_store(f"sqlite:///{tmp_path / 'audit.sqlite'}")
    with store.writing() as connection:
        models = '{"m":"m:1"}'
        connection.execute(insert(STRATA), [{"id": 1, "models": models, "policy": "p", "hash_list": ""}])
        connection.execute(
            insert(TEXTS),
            [{"id": n, "kind": int(TextKind.INSTANCE), "text": f"i{n}.example"} for n in range(1, many + 1)],
        )
        connection.execute(
            insert(PERIODS),
            [
                {
                    "instance_id": n,
                    "stratum_id": 1,
                    "first_day": as_day(date(2026, 1, 5)) if n % 2 else day - 7,
                    "exposed": 100 + n % 997,
                    "flagged": (100 + n % 997) // 100 + (20 if n % 50 == 0 else 0),
                }
                for n in range(1, many + 1)
            ],
        )
    store.close()
    with running_pages(tmp_path) as pages:
        visitor = Visitor(pages.url)
        visitor.log_in("viewer")
        text = visitor.get("/instances").text  # the first one waits for the assessment
        assert "Rows 1 to 50 of 20,000" in text and "within the lines" in text
        plot = text[text.index('<svg class="plot funnel"') :]
        plot = plot[: plot.index("</svg>")]
        assert plot.count("<a href") <= 250 < ALONE_MOST * 2 and "<circle cx" in plot
        times = []
        for query in ("", "?page=300", "?q=i77", "?level=0", "?sort=instance", "?sort=-chance"):
            began = time.process_time()
            assert visitor.get(f"/instances{query}").status_code == 200
            times.append(time.process_time() - began)
        print("ms of CPU:", [round(each * 1_000) for each in times])
        assert sorted(times)[3] < 0.2, times
        visitor.http.close()
