"""Alerts: counts and links, not at night, not too often, and none forgotten."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from federation_audit.alert_settings import AlertSettings
from federation_audit.alerts import Alerts, AlertSent, Event, EventKind, NoAlerts, apprise_notifier
from federation_audit.cases import Level

NOON = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


class Told:
    """What was told; `reached` is what telling comes to."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []
        self.reached = True

    async def __call__(self, title: str, text: str) -> bool:
        self.messages.append((title, text))
        return self.reached


@pytest.fixture
def told() -> Told:
    return Told()


def alerts(told: Told, **settings: Any) -> Alerts:
    return Alerts(AlertSettings.model_validate(settings), told)


def send(made: Alerts, at: datetime) -> AlertSent | None:
    return asyncio.run(made.send_due(at))


def level(to: Level, link: str = "https://warden.my.example/cases/1") -> Event:
    return Event(EventKind.LEVEL, 1, (link,), to)


def test_several_events_become_one_message_of_counts_and_links(told: Told) -> None:
    made = alerts(told)
    made.note(level(Level.RECOMMEND))
    made.note(level(Level.RESTRICT, "https://warden.my.example/cases/2"))
    made.note(level(Level.RESTRICT, "https://warden.my.example/cases/2"))
    made.note(Event(EventKind.CONFIRMED, 3))
    made.note(Event(EventKind.WAITING, 60))
    sent = send(made, NOON)
    assert sent is not None
    assert sent.title == "fediwarden: 4 things to look at"
    assert sent.text.splitlines() == [
        "1 instance came to level 3 (recommend)",
        "2 instances came to level 2 (restrict)",
        "3 incidents confirmed",
        "60 rows waiting for review",
        "https://warden.my.example/cases/1",
        "https://warden.my.example/cases/2",
    ]
    assert send(made, NOON + timedelta(days=1)) is None


def test_below_the_thresholds_nobody_is_woken(told: Told) -> None:
    made = alerts(told, level=3, confirmed=5, waiting=100, expiring=2)
    made.note(level(Level.RESTRICT))
    made.note(Event(EventKind.CONFIRMED, 2))
    made.note(Event(EventKind.CONFIRMED, 2))
    made.note(Event(EventKind.WAITING, 99))
    made.note(Event(EventKind.EXPIRING, 1))
    assert made.due_at(NOON) is None
    made.note(Event(EventKind.CONFIRMED, 1))
    sent = send(made, NOON)
    assert sent is not None
    assert sent.text == "5 incidents confirmed"


def test_a_queue_is_told_again_only_when_it_has_doubled_or_was_empty_in_between(told: Told) -> None:
    made = alerts(told, waiting=50)
    at = NOON
    for waiting, tells in ((50, True), (60, False), (99, False), (100, True), (150, False), (10, False), (50, True)):
        at += timedelta(hours=1)
        made.note(Event(EventKind.WAITING, waiting))
        assert (send(made, at) is not None) is tells, waiting


def test_messages_keep_their_distance_and_what_came_in_between_is_in_the_next(told: Told) -> None:
    made = alerts(told, at_most_every_min=30)
    made.note(level(Level.RESTRICT))
    assert send(made, NOON) is not None
    made.note(level(Level.RESTRICT))
    made.note(level(Level.RESTRICT))
    assert send(made, NOON + timedelta(minutes=29)) is None
    assert made.due_at(NOON) == NOON + timedelta(minutes=30)
    sent = send(made, NOON + timedelta(minutes=30))
    assert sent is not None
    assert sent.text.startswith("2 instances")


@pytest.mark.parametrize(
    ("at", "due"),
    [
        ("2026-11-28T20:59", "2026-11-28T20:59"),  # 21:59 in Berlin
        ("2026-11-28T21:00", "2026-11-29T06:00"),
        ("2026-11-29T00:30", "2026-11-29T06:00"),
        ("2026-11-29T06:00", "2026-11-29T06:00"),
        ("2026-03-28T23:00", "2026-03-29T05:00"),  # the night in which the clocks go forward
    ],
)
def test_in_quiet_hours_nothing_is_told_until_their_end(told: Told, at: str, due: str) -> None:
    made = alerts(told, quiet_from="22:00", quiet_until="07:00", time_zone="Europe/Berlin")
    made.note(level(Level.RECOMMEND))
    moment, expected = (datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (at, due))
    assert made.due_at(moment) == expected
    assert (send(made, moment) is not None) is (moment == expected)


def test_quiet_hours_by_day_work_as_well(told: Told) -> None:
    made = alerts(told, quiet_from="09:00", quiet_until="17:00")
    made.note(level(Level.RECOMMEND))
    assert made.due_at(NOON) == NOON.replace(hour=17)


def test_what_reached_nobody_is_told_again_later_with_what_came_since(told: Told) -> None:
    made = alerts(told)
    told.reached = False
    made.note(level(Level.RESTRICT))
    sent = send(made, NOON)
    assert sent is not None
    assert not sent.reached
    told.reached = True
    made.note(level(Level.RESTRICT))
    assert send(made, NOON + timedelta(minutes=1)) is None
    sent = send(made, NOON + timedelta(minutes=30))
    assert sent is not None
    assert sent.text.startswith("2 instances came to level 2")


def test_what_is_no_link_is_left_out_and_many_links_are_counted(told: Told) -> None:
    made = alerts(told)
    made.note(level(Level.RESTRICT, "javascript:alert(1)"))
    for number in range(12):
        made.note(level(Level.RESTRICT, f"https://warden.my.example/cases/{number}"))
    sent = send(made, NOON)
    assert sent is not None
    assert "javascript" not in sent.text
    assert sent.text.count("https://") == 10
    assert sent.text.endswith("and 2 more")


@pytest.mark.parametrize(
    "wrong",
    [
        {"quiet_from": "22:00"},
        {"quiet_from": "24:00", "quiet_until": "07:00"},
        {"quiet_from": "22:00", "quiet_until": "22:00"},
        {"time_zone": "Berlin"},
        {"level": 4},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AlertSettings.model_validate(wrong)


def test_apprise_tells_a_real_server_and_no_secret_is_said_when_an_address_is_wrong() -> None:
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Quietly."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.05))
        thread.start()
        try:
            settings = AlertSettings.model_validate({"urls": f"json://127.0.0.1:{server.server_address[1]}/"})
            made = Alerts(settings, apprise_notifier(settings))
            made.note(level(Level.RECOMMEND))
            sent = send(made, NOON)
        finally:
            server.shutdown()
            thread.join()
    assert sent is not None
    assert sent.reached
    assert orjson.loads(got[0])["message"].startswith("1 instance came to level 3 (recommend)")
    wrong = AlertSettings.model_validate({"urls": "json://127.0.0.1/ nonsense-with-a-secret"})
    with pytest.raises(NoAlerts, match="address 2") as raised:
        apprise_notifier(wrong)
    assert "secret" not in str(raised.value)
    with pytest.raises(NoAlerts, match=r"alerts\.urls"):
        apprise_notifier(AlertSettings())
