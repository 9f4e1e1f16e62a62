"""Alerts over a filled store, told by Apprise to a real HTTP server, with a clock of the test's own."""

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select
from structlog.testing import capture_logs

from federation_audit.accounts.tables import ACTIONS
from federation_audit.alerting import AlertRunner, make_runner
from federation_audit.alerts import AlertSent, apprise_notifier
from federation_audit.assessing.assessor import Assessor
from federation_audit.deciding.tables import DECISIONS
from federation_audit.reviewing.outcomes import Opinion
from federation_audit.reviewing.queue import read_waiting
from federation_audit.reviewing.tables import REVIEWS
from federation_audit.settings import AuditSettings
from federation_audit.statistics.events import Confirmation
from federation_audit.store.engine import Store
from tests.fediverse import LIST, copy_filled, review
from tests.stores import sqlite_url

PUBLIC = "https://audit.my.example"
LISTS = (LIST.partition("@")[0],)


class Server:
    """Takes what Apprise's json:// sends."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        taken = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                taken.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(taken.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Quietly."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=lambda: self.http.serve_forever(poll_interval=0.05))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.http.server_address[1]}/"

    def stop(self) -> None:
        self.http.shutdown()
        self._thread.join()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


class Rig:
    """A store that nobody has reviewed, and a runner that can be begun anew as a restart does."""

    def __init__(self, folder: Path, server: Server, **alerts: Any) -> None:
        url, self.filled = copy_filled(folder, reviewed=False)
        self.store = Store(url)
        self.now = datetime.combine(self.filled.today, datetime.min.time(), UTC) + timedelta(hours=12)
        self._alerts = {"urls": server.url, "waiting": 100_000} | alerts
        self.restart()

    def restart(self) -> None:
        settings = AuditSettings.model_validate(
            {"alerts": self._alerts, "pages": {"public_url": PUBLIC}, "verified_lists": LISTS}
        )
        self.assessor = Assessor(self.store, every_s=1e9, verified_lists=LISTS, today=lambda: self.filled.today)
        notify = apprise_notifier(settings.alerts)
        self.runner = AlertRunner(settings, self.store, self.assessor, notify, clock=lambda: self.now)

    def look(self, **later: float) -> AlertSent | None:
        """Look, some time later, with an assessment made for it."""
        self.now += timedelta(**later)
        self.assessor.refresh()
        return asyncio.run(self.runner.look())

    def confirm(self, domain: str) -> None:
        review(self.store, self.filled.flagged[domain], at=self.ms)
        review(self.store, self.filled.flagged[domain], at=self.ms, tenant="second")

    @property
    def ms(self) -> int:
        return round(self.now.timestamp() * 1000)

    def actions(self) -> list[tuple[str, str, str]]:
        with self.store.reading() as connection:
            rows = connection.execute(select(ACTIONS).where(ACTIONS.c.who == "alerts").order_by(ACTIONS.c.id))
            return [(row.what, row.about, json.loads(row.detail)["text"]) for row in rows]


@pytest.fixture
def rig(tmp_path: Path, server: Server) -> Rig:
    return Rig(tmp_path, server)


def test_what_is_new_is_told_once_with_links_and_a_restart_tells_nothing_again(rig: Rig, server: Server) -> None:
    first = rig.look()  # what a verified list has needs no reviewer
    assert first is not None and first.text == f"1 incident confirmed\n{PUBLIC}/instances/listed.example"
    assert rig.look(minutes=31) is None

    rig.confirm("bad.example")
    sent = rig.look(minutes=31)
    assert sent is not None and sent.reached
    by_reviewers = [
        each for each in rig.assessor.newest().known.evidence.incidents if each.confirmed is Confirmation.REVIEWERS
    ]
    level = int(rig.assessor.newest().assessment["bad.example"].level)
    assert level == 3 and {each.instance for each in by_reviewers} == {"bad.example"}
    assert sent.text.splitlines() == [
        "1 instance came to level 3 (recommend)",
        f"{len(by_reviewers)} incidents confirmed",
        f"{PUBLIC}/instances/bad.example",
    ]
    assert server.got[-1]["title"] == "fediwarden: 2 things to look at"
    assert server.got[-1]["message"] == sent.text
    assert rig.actions()[-1] == ("alert sent", sent.title, sent.text)

    assert rig.look(minutes=31) is None
    rig.restart()
    assert rig.look(minutes=31) is None
    rig.confirm("small.example")
    other = rig.look(minutes=31)
    assert other is not None and "small.example" in other.text and "bad.example" not in other.text
    assert len(server.got) == 3


def test_levels_that_fall_and_rise_with_a_rebuild_are_not_told_again_those_that_stayed_low_are(rig: Rig) -> None:
    rig.confirm("bad.example")
    assert rig.look() is not None
    with rig.store.reading() as connection:
        reviews = [dict(row._mapping) for row in connection.execute(select(REVIEWS))]

    def take_out() -> None:
        with rig.store.writing() as connection:
            connection.execute(delete(REVIEWS))

    def put_back() -> None:
        with rig.store.writing() as connection:
            connection.execute(insert(REVIEWS), reviews)

    take_out()
    assert rig.look(hours=1) is None
    assert rig.assessor.newest().assessment["bad.example"].level < 2
    put_back()
    assert rig.look(hours=1) is None
    take_out()
    assert rig.look(hours=1) is None
    assert rig.look(hours=25) is None
    put_back()
    again = rig.look(hours=1)
    assert again is not None and again.text.splitlines()[0] == "1 instance came to level 3 (recommend)"


def test_what_reached_nobody_is_told_later_and_in_quiet_hours_nobody_is_woken(tmp_path: Path, server: Server) -> None:
    rig = Rig(tmp_path, server, quiet_from="22:00", quiet_until="07:00")
    rig.confirm("bad.example")
    server.status = 500
    failed = rig.look()
    assert failed is not None and not failed.reached
    assert rig.actions()[-1][0] == "alert not delivered"
    server.status = 200
    rig.restart()
    assert rig.look(minutes=10) is None  # at most every 30 minutes, after a restart as well
    rig.now = rig.now.replace(hour=22, minute=5)
    assert rig.look() is None
    rig.restart()
    assert rig.look(hours=8) is None
    sent = rig.look(hours=1)
    assert sent is not None and sent.reached and sent.at.hour == 7
    assert sent.text.startswith("1 instance came to level 3")


def test_the_queue_and_decisions_that_end_soon(tmp_path: Path, server: Server) -> None:
    rig = Rig(tmp_path, server, waiting=20, confirmed=10_000, level=3)
    with rig.store.reading() as connection:  # what a reviewer finds there: pictures that look alike are one row
        rows = len(read_waiting(connection, "carol", verified_lists=LISTS)[0])
    assert 20 < rows < sum(map(len, rig.filled.flagged.values()))
    sent = rig.look()
    assert sent is not None and sent.text == f"{rows} rows waiting for review"
    rig.restart()
    assert rig.look(minutes=31) is None

    trees = rig.filled.flagged["drawings.example"]
    review(rig.store, trees, Opinion.DISMISS, by=("alice",), at=rig.ms)
    review(rig.store, rig.filled.flagged["bad.example"][:1], Opinion.UNSURE, by=("bob",), at=rig.ms)
    waiting = rig.runner._gather(rig.now)[0]._waiting
    assert waiting == rows - len(trees)

    numbers = itertools.count()

    def decision(days: float | None, ended: int | None = None) -> dict[str, Any]:
        until = None if days is None else rig.ms + round(days * 86_400_000)
        return {
            "domain": f"bad{next(numbers)}.example",
            "action": "defederate",
            "reason": "x",
            "level": 3,
            "decided_by": "ada",
            "decided_at": rig.ms,
            "until": until,
            "ended_at": ended,
        }

    with rig.store.writing() as connection:
        rows = [decision(3), decision(6.9), decision(8), decision(-1), decision(None), decision(2, ended=rig.ms)]
        connection.execute(insert(DECISIONS), rows)
    sent = rig.look(minutes=31)
    assert sent is not None and sent.text == "2 decisions about to expire"
    rig.restart()
    assert rig.look(hours=2) is None


def test_of_two_processes_one_tells(tmp_path: Path, server: Server) -> None:
    rig = Rig(tmp_path, server)
    rig.confirm("bad.example")
    rig.assessor.refresh()
    first = rig.runner
    rig.restart()
    second = rig.runner

    async def both() -> list[AlertSent | None]:
        return list(await asyncio.gather(first.look(), second.look()))

    assert [each is None for each in sorted(asyncio.run(both()), key=lambda each: each is None)] == [False, True]
    assert len(server.got) == 1


@pytest.mark.parametrize("urls", [None, "hunter2"])
def test_without_a_right_address_there_is_no_runner_and_no_secret_is_said(tmp_path: Path, urls: str | None) -> None:
    settings = AuditSettings.model_validate({"alerts": {"urls": urls}})
    with Store(sqlite_url(tmp_path)) as store, capture_logs() as logged:
        assert make_runner(settings, store, Assessor(store)) is None
    assert [each["event"] for each in logged] == ([] if urls is None else ["alerts_off"])
    assert "hunter2" not in str(logged)
