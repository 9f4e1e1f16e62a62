import csv
import io
import json
import re
from datetime import date, timedelta

import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from federation_audit.neutralising import guard_field
from federation_audit.pages import figures
from federation_audit.pages.cells import (
    Day,
    Interval,
    Link,
    Listed,
    Mark,
    Moment,
    Outside,
    Said,
    Share,
    as_field,
    as_html,
    as_plain,
)
from federation_audit.pages.cookies import Jar, check_token, make_token, read_cookies
from federation_audit.pages.exports import export
from federation_audit.pages.guard import Guard
from federation_audit.pages.plots import Bar, Line, Spot, draw_bars, draw_course, nice_ticks
from federation_audit.pages.settings import PagesSettings
from federation_audit.pages.table import Column, Filter, Links, Rows, Table, select_rows, take
from federation_audit.pages.text import plain_text, show_text
from federation_audit.pages.visits import own_path

NOW = 1_764_322_200_000  # 2025-11-28 09:30 UTC

FRUIT: Table[tuple[str, int | None]] = Table(
    name="fruit",
    title="Fruit",
    order="name",
    empty="none",
    filters=(Filter("q", "Name"), Filter("kind", "Kind", (("soft", "soft"),))),
    columns=(
        Column("name", "Name", lambda row: Said(row[0]), sortable=True),
        Column("count", "Count", lambda row: row[1], sortable=True, starts="down"),
    ),
)
ROWS: list[tuple[str, int | None]] = [("pear", 3), ("apple", None), ("=1+1", 10), ("fig", -2)]


def test_markup_in_names_is_shown_and_not_obeyed() -> None:
    shown = show_text("<img src=x onerror=alert(1)> & 'so' \"on\"")
    assert "<img" not in shown and "&lt;img" in shown
    assert as_html(Link(Said("<b>"), '/x?"><script>'), NOW).count("<") == 4


def test_text_that_turns_the_line_round_is_isolated_and_its_controls_are_written_out() -> None:
    shown = show_text("invoice\u202efdp.exe")
    assert shown.startswith("<bdi") and shown.endswith("</bdi>")
    assert "\u202e" not in shown and "U+202E" in shown and "right-to-left override" in shown
    assert plain_text("a\u202eb") == "a⟨U+202E⟩b"


@pytest.mark.parametrize(
    "unseen",
    ["\x00", "\x1b", "\x7f", "\x85", "\u200b", "\u2066", "\ufeff", "\ue000", "\U000e0041", "\u3164", "\n", "\ud800"],
)
def test_what_cannot_be_seen_is_written_out(unseen: str) -> None:
    shown = show_text(f"a{unseen}b")
    assert unseen not in shown and f"U+{ord(unseen):04X}" in shown
    shown.encode("utf-8")
    assert unseen not in plain_text(f"a{unseen}b")


def test_emoji_and_scripts_that_need_joiners_stay_whole() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert family in show_text(family)
    assert "می\u200cخواهم" in show_text("می\u200cخواهم")


def test_towers_of_accents_are_cut_down() -> None:
    assert show_text("e" + "\u0301" * 500, cut=1_000).count("\u0301") == 4


def test_long_text_is_cut_and_its_title_has_the_whole() -> None:
    shown = show_text("x" * 300, cut=40)
    assert "x" * 40 + "<" in shown and f'title="{"x" * 300}"' in shown and "260 more" in shown
    endless = show_text("y" * 10_000)
    assert len(endless) < 5_000 and "10,000 characters" in endless


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.00123, "0.00123"),
        (0.5, "0.500"),
        (3.14159, "3.14"),
        (42.0, "42.0"),
        (1234.5, "1,234"),
        (9.996, "10.0"),
        (99.96, "100"),
        (float("inf"), "inf"),
        (2.5e9, "2.50e+09"),
        (1e-9, "1.00e-09"),
        (-0.25, "-0.250"),
        (float("nan"), "unknown"),
    ],
)
def test_decimals_have_three_significant_digits(number: float, text: str) -> None:
    assert figures.decimal(number) == text


def test_shares_intervals_and_counts_read_as_people_write_them() -> None:
    assert figures.share(0.0043) == "0.43\u00a0%"
    assert figures.share(0.128) == "12.8\u00a0%"
    assert figures.interval(0.001, 0.02, per_cent=True) == "0.10 to 2.0\u00a0%"
    assert figures.count(1234567) == "1,234,567"


def test_moments_are_utc_with_how_long_ago() -> None:
    assert figures.utc(NOW) == "2025-11-28 09:30 UTC"
    assert figures.relative(NOW - 3 * 3_600_000, NOW) == "3\u00a0h ago"
    assert figures.relative(NOW + 2 * 86_400_000, NOW) == "in 2\u00a0d"
    assert figures.relative(NOW - 1_000, NOW) == "just now"
    assert 'datetime="2025-11-28T09:30:00.000Z"' in as_html(Moment(NOW), NOW)


@pytest.mark.parametrize("at_ms", [-1, 10**18])
def test_a_moment_beyond_the_calendar_is_shown_as_it_came(at_ms: int) -> None:
    assert str(at_ms) in as_html(Moment(at_ms), NOW)
    assert as_plain(Moment(at_ms)) == at_ms


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r\n=1", " =1", "＝1", "|calc", "%0"])
def test_what_a_spreadsheet_could_run_is_marked_as_text(text: str) -> None:
    assert guard_field(text) == "'" + text


@pytest.mark.parametrize("text", ["a=b", "example.social", "", "1-2", "ok"])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert guard_field(text) == text


def test_cells_are_values_in_json_and_text_in_csv() -> None:
    assert as_plain(Interval(0.5, 0.25, 0.75)) == {"value": 0.5, "low": 0.25, "high": 0.75}
    assert as_plain(Share(float("nan"))) is None
    assert as_plain(Listed([Mark("a", "bad"), Said("b\u202e")])) == ["a", "b\u202e"]
    assert as_field(Listed(["a", 2, None])) == "a; 2; "
    assert as_field(Moment(NOW)) == "2025-11-28T09:30:00.000Z"
    assert as_field(Interval(0.5, 0.25, 0.75)) == "0.5 (0.25 to 0.75)"


def _shown(query: dict[str, str], size: int = 50) -> tuple[Links, Rows[tuple[str, int | None]]]:
    selection = select_rows(FRUIT, query, size=size)
    found = take(ROWS, FRUIT, selection, lambda row: selection.term("q") in row[0])
    return Links("/fruit", FRUIT, selection), found


def test_rows_come_in_the_order_that_is_asked_for_with_unknown_last() -> None:
    assert [name for name, _ in _shown({"sort": "count"})[1].rows] == ["fig", "pear", "=1+1", "apple"]
    assert [name for name, _ in _shown({"sort": "-count"})[1].rows] == ["=1+1", "pear", "fig", "apple"]
    assert [name for name, _ in _shown({"sort": "nonsense"})[1].rows][1] == "apple"


def test_a_query_that_makes_no_sense_is_passed_over() -> None:
    for page in ("0", "-3", "x", "9" * 20, "١"):
        assert _shown({"page": page})[0].selection.page == 1
    links, found = _shown({"q": "p", "kind": "<script>", "other": "1"})
    assert links.selection.terms == {"q": "p"} and found.total == 2


def test_links_keep_the_search_and_change_one_thing() -> None:
    links, _ = _shown({"q": "p&=", "sort": "-count", "page": "2"})
    assert links.sort(FRUIT.columns[1]) == "/fruit?q=p%26%3D&sort=count"
    assert links.page(3) == "/fruit?q=p%26%3D&sort=-count&page=3"
    assert links.form("csv") == "/fruit?q=p%26%3D&sort=-count&format=csv"


def test_csv_is_read_back_by_a_reader_of_csv_and_runs_nothing() -> None:
    hostile: list[tuple[str, int | None]] = [('=cmd|"/c calc"!A1', 1), ('a,"b"\r\nc', -2), ("ü", None)]
    links, _ = _shown({})
    answer = export("csv", FRUIT, Rows(hostile, 3), links)
    rows = list(csv.reader(io.StringIO(bytes(answer.body).decode(), newline="")))
    assert rows == [["name", "count"], ["'" + '=cmd|"/c calc"!A1', "1"], ['a,"b"⟨U+000D⟩⟨U+000A⟩c', "-2"], ["ü", ""]]
    assert bytes(answer.body).count(b"\r\n") == 4
    assert 'filename="fruit.csv"' in answer.headers["content-disposition"]


def test_json_has_the_text_unchanged_and_says_where_the_rest_is() -> None:
    links, found = _shown({"sort": "name"}, size=2)
    answer: Response = export("json", FRUIT, found, links)
    document = json.loads(bytes(answer.body))
    assert document["rows"] == [{"name": "=1+1", "count": 10}, {"name": "apple", "count": None}]
    assert document["total"] == 4 and document["next"] == "/fruit?page=2&format=json"
    assert answer.headers["link"] == '</fruit?page=2&format=json>; rel="next"'


def test_a_token_holds_for_its_cookie_alone() -> None:
    token = make_token("cookie")
    assert check_token("cookie", token) and token != make_token("cookie")
    for key, other in (
        ("other", token),
        ("cookie", token[:-1]),
        ("cookie", ""),
        ("", make_token("")),
        ("cookie", "ü.ü"),
    ):
        assert not check_token(key, other)


def test_cookies_are_secure_over_https_and_host_bound() -> None:
    jar = Jar(secure=True)
    assert jar.written(jar.session, "x") == ("__Host-fediwarden-session=x; Path=/; HttpOnly; SameSite=Strict; Secure")
    plain = Jar(secure=False)
    assert "Secure" not in plain.written(plain.session, "x") and "__Host" not in plain.session
    assert read_cookies('a=1; b="2"; a=3; =x; c') == {"a": "1", "b": "2"}


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil", "", "x", "/a\nb", "/ü"])
def test_nobody_is_sent_to_another_site(path: str) -> None:
    assert own_path(path) == "/"
    assert own_path("/users?q=a&page=2") == "/users?q=a&page=2"


def test_passwords_never_travel_readable() -> None:
    for wrong in (
        {"host": "0.0.0.0"},
        {"public_url": "http://audit.example"},
        {"public_url": "ftp://x"},
        {"public_url": "https://audit.example/path"},
        {"host": "0.0.0.0", "public_url": "http://127.0.0.1"},
    ):
        with pytest.raises(ValueError, match=r"public_url|https"):
            PagesSettings(**wrong)  # type: ignore[arg-type]
    assert PagesSettings(host="0.0.0.0", public_url="https://Audit.example/").public_url == "https://audit.example"
    assert not PagesSettings().secure


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1:14052", 200), ("localhost", 200), ("172.18.0.5:14052", 421)])
def test_pages_published_on_loopback_answer_to_its_names_alone(host: str, status: int) -> None:
    settings = PagesSettings(host="0.0.0.0", published_on_loopback=True)
    assert not settings.secure
    guard = Guard(PlainTextResponse("a page"), settings, lambda _, turned: PlainTextResponse("no", turned.status))
    assert TestClient(guard, base_url=f"http://{host}").get("/").status_code == status


def test_templates_have_no_styles_and_no_scripts_in_them() -> None:
    from importlib.resources import files

    for template in files("federation_audit.pages").joinpath("templates").iterdir():
        text = template.read_text()
        assert not re.search(r"\sstyle=|<style|\son[a-z]+=|javascript:|https?://|\|safe", text), template.name
        assert len(re.findall(r"<script\b", text)) == len(re.findall(r"<script src=", text))


def test_addresses_elsewhere_are_text_and_only_web_pages_get_a_link_that_tells_them_nothing() -> None:
    shown = as_html(Outside('https://far.example/"><script>alert(1)</script>'), NOW)
    assert "<script>" not in shown and shown.count("<a ") == 1 and 'rel="noreferrer noopener nofollow"' in shown
    for address in ("javascript:alert(1)", "data:text/html,x", "//far.example/x", " https://far.example", "=1+1", ""):
        assert "<a " not in as_html(Outside(address), NOW)
        assert as_plain(Outside(address)) == address


def test_days_and_probabilities_as_cells() -> None:
    day = Day(date(2026, 11, 1))
    assert (as_plain(day), as_field(day)) == ("2026-11-01", "2026-11-01") and "2026-11-01</time>" in as_html(day, NOW)
    assert as_html(Share(0.00001, coarse=True), NOW) == "under 0.1\u00a0%"
    assert as_html(Share(0.99995, coarse=True), NOW) == "over 99.9\u00a0%"
    assert as_html(Share(0.43, coarse=True), NOW) == as_html(Share(0.43), NOW)
    assert as_plain(Share(0.00001, coarse=True)) == 0.00001


@pytest.mark.parametrize("highest", [0.0, 0.3, 1.0, 3.0, 7.0, 10.0, 99.0, 101.0, 12_345.0, 3e9, float("inf")])
def test_ticks_are_few_whole_and_reach_to_the_top(highest: float) -> None:
    ticks = nice_ticks(highest)
    assert 2 <= len(ticks) <= 7 and ticks[0] == 0.0 and all(tick == int(tick) for tick in ticks)
    assert ticks[-1] >= highest or highest == float("inf")


def test_bars_are_as_high_as_their_values_and_say_them() -> None:
    bars = [Bar(f"day {n}", n, f"day {n}: <{n}>") for n in (0, 5, 10)]
    plot = draw_bars("Bars & more", "What there is", bars)
    heights = [float(each) for each in re.findall(r'<rect[^>]*height="([\d.]+)"', plot)]
    assert len(heights) == 2 and heights[1] == pytest.approx(2 * heights[0], rel=0.01)
    assert "<title>day 5: &lt;5&gt;</title>" in plot and "<title>Bars &amp; more</title>" in plot
    assert "<desc>What there is</desc>" in plot and "style=" not in plot
    assert "<rect" not in draw_bars("None", "Nothing", [])


def test_a_course_keeps_to_its_frame_whatever_it_is_given() -> None:
    start = date(2026, 1, 5)
    values = (0.0, 1e-9, 3.0, 1e300, float("inf"))
    for logarithmic in (False, True):
        spots = [Spot(start + timedelta(weeks=n), value, value / 2, value * 2) for n, value in enumerate(values)]
        if not logarithmic:
            spots = spots[:3]
        plot = draw_course("Course", "Says", spots, lines=[Line(20.0, "level 2")], logarithmic=logarithmic)
        assert "nan" not in plot and "inf" not in re.sub(r"<title>.*?</title>", "", plot)
        for y in re.findall(r'cy="(-?[\d.]+)"', plot):
            assert 0.0 <= float(y) <= 132.0
    assert "<polyline" in draw_course("One", "Says", [Spot(start, 1.0)])
