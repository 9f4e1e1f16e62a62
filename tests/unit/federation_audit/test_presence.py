"""Whether posts are still at their origin: asked of real HTTPS servers on loopback, by a clock of the tests."""

import asyncio
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from federation_audit.cases import Presence, Removal
from federation_audit.presence import looker as looking
from federation_audit.presence.looker import Looker
from federation_audit.presence.reading import read_presence, read_removal
from federation_audit.presence.schedule import GIVEN_UP_MS, HOUR_MS, LOOKS_MS, next_look, next_try
from federation_audit.presence.service import run_presence, watching
from federation_audit.presence.settings import PresenceSettings
from federation_audit.presence.tables import PRESENCES
from federation_audit.reviewing.tables import REVIEWS
from federation_audit.store.engine import Store
from federation_audit.store.errors import StoreUnavailable
from schemas.messages import Decision, OriginObserved, Place, Stage
from schemas.topics import DAY_MS
from tests.certificates import Authority
from tests.stores import NOON, forgotten, judged, open_store, seen, sha, sqlite_url, write

HERE = "127.0.0.1"
GONE, UP, UNKNOWN = Presence.GONE, Presence.UP, Presence.UNKNOWN
MINUTE = 60_000


class Origin:
    """An instance that answers for its posts by their path: a status, or one of the kinds below."""

    def __init__(self) -> None:
        self.kinds: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.port = 0
        self.ending = threading.Event()
        self.at_once = 0
        self.most_at_once = 0
        self.counting = threading.Lock()

    def url(self, name: str, host: str = HERE) -> str:
        return f"https://{host}:{self.port}/post/{name}"

    @property
    def names(self) -> list[str]:
        return [path.rpartition("/")[2] for path, _ in self.asked]


def answer(origin: Origin, handler: BaseHTTPRequestHandler) -> None:
    name = handler.path.rpartition("/")[2]
    headers = {key.lower(): value for key, value in handler.headers.items()}
    origin.asked.append((handler.path, headers))
    kind = origin.kinds.get(name, "note")
    host = headers["host"].partition(":")[0]
    note = b'{"type": "Page", "id": "https://%s/post/%s"}' % (host.encode(), name.encode())
    replies: dict[Any, tuple[int, str, bytes]] = {
        "note": (200, "application/activity+json; charset=utf-8", note),
        "tombstone": (200, "application/activity+json", b'{"type": "Tombstone", "id": "https://x.example/1"}'),
        "elsewhere": (200, "application/activity+json", b'{"type": "Note", "id": "https://other.example/1"}'),
        "html": (200, "text/html", b"<h1>Not found</h1>"),
        "picture": (200, "image/png", bytes(500_000)),
        "html-as-json": (200, "application/json", b"<h1>Not found</h1>"),
        "list": (200, "application/json", b"[1, 2]"),
        "typeless": (200, "application/json", b'{"type": 7, "id": null}'),
        "deep": (200, "application/json", b"[" * 200_000),
        "large": (200, "application/json", b'{"type": "' + b"x" * 2_000_000 + b'"}'),
    }
    if isinstance(kind, int):
        _reply(handler, kind, "text/plain", b"no", {})
    elif isinstance(kind, tuple):  # a status, and Retry-After
        _reply(handler, kind[0], "text/plain", b"no", {"retry-after": kind[1]})
    elif kind.startswith("to "):
        _reply(handler, 302, "text/plain", b"", {"location": kind[3:]})
    elif kind == "slow":
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.end_headers()
        origin.ending.wait(20)
    elif kind == "endless":
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"1000\r\n%s\r\n" % (b" " * 0x1000))
        except OSError:
            return
    else:
        _reply(handler, *replies[kind], {})


def _reply(handler: BaseHTTPRequestHandler, status: int, kind: str, body: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in {"content-type": kind, "content-length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's side and ours."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    certificate, key, _ = authority.issue("origin")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    return serving, ssl.create_default_context(cafile=str(authority.ca_file))


@pytest.fixture
def origin(certificates: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Origin]:
    side = Origin()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with side.counting:
                side.at_once += 1
                side.most_at_once = max(side.most_at_once, side.at_once)
            try:
                answer(side, self)
            except OSError:
                pass  # we hung up
            finally:
                with side.counting:
                    side.at_once -= 1

        def log_message(self, *args: Any) -> None:
            """Quietly."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: Any) -> None:
            """We hang up on those who do not end."""

    with Server((HERE, 0), Handler) as server:
        server.socket = certificates[0].wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        side.port = server.server_address[1]
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
        thread.start()
        yield side
        side.ending.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """In SQLite; in PostgreSQL for tests that say so by `in_both`."""
    url = sqlite_url(tmp_path)
    if getattr(request, "param", "sqlite") == "postgresql":
        postgres = request.getfixturevalue("postgres")
        url = postgres.server.url(postgres.make_database(""))
    with open_store(url) as opened:
        yield opened


in_both = pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)


class Clock:
    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def looker(store: Store, clock: Clock, certificates: tuple[ssl.SSLContext, ssl.SSLContext]) -> Looker:
    return Looker(settings(), store, now=clock, tls=certificates[1])


def settings(**more: Any) -> PresenceSettings:
    given = {"networks": (ipaddress.ip_network("127.0.0.0/8"),), "ports": tuple(range(1, 65536)), "timeout_s": 60.0}
    return PresenceSettings(enabled=True, **(given | more))


def confirm(store: Store, *images: int, opinions: tuple[str, ...] = ("confirm", "confirm")) -> None:
    rows = [
        {"tenant": "default", "sha256": sha(image), "reviewer": f"r{n}", "opinion": opinion, "at": NOON, "note": ""}
        for image in images
        for n, opinion in enumerate(opinions)
    ]
    with store.writing() as connection:
        connection.execute(insert(REVIEWS), rows)


def post(origin: Origin, name: str, *, host: str = HERE, **more: Any) -> OriginObserved:
    return seen(1, more.pop("author", host), post=origin.url(name, host), **({"actor": "x"} | more))


def incident(store: Store, *posts: OriginObserved) -> None:
    """One confirmed image in these posts."""
    write(store, [judged(1, Decision.REJECT), *posts])
    confirm(store, 1)


def turns(looker: Looker, clock: Clock, *, until: int, step: int = MINUTE) -> None:
    """Give it turns, a minute apart, up to a time."""

    async def go() -> None:
        while clock.now <= until:
            await looker.turn()
            clock.now += step

    asyncio.run(go())


def look(looker: Looker, clock: Clock, age: int = HOUR_MS) -> None:
    """One turn at an age of the posts, after those that take new ones up."""
    clock.now = NOON + age
    asyncio.run(looker.turn())


def presence(store: Store, url: str) -> Presence:
    with store.reading() as connection:
        return read_presence(connection, [url])[url]


def removal(store: Store, domain: str = HERE) -> Removal:
    with store.reading() as connection:
        return read_removal(connection, domain)


def rows(store: Store) -> list[Any]:
    with store.reading() as connection:
        return list(connection.execute(select(PRESENCES).order_by(PRESENCES.c.post_url)))


ANSWERS = {
    "note": UP,
    404: GONE,
    410: GONE,
    "tombstone": GONE,
    **dict.fromkeys((401, 403, 418, 429, 451, 500, 503, 204), UNKNOWN),
    **dict.fromkeys(("elsewhere", "html", "html-as-json", "list", "typeless", "deep", "large", "picture"), UNKNOWN),
    **dict.fromkeys(("slow", "endless"), UNKNOWN),
    "to http://127.0.0.1:1/": UNKNOWN,
    "to https://10.1.2.3/x": UNKNOWN,
    "to https://localhost/x": UNKNOWN,
    "to https://[::1": UNKNOWN,
    "to loop": UNKNOWN,
    "to html": UNKNOWN,
}


@pytest.mark.parametrize(("kind", "told"), ANSWERS.items(), ids=map(str, ANSWERS))
def test_what_an_answer_tells(store, clock, origin, certificates, kind, told):
    origin.kinds = {"x": kind, "loop": "to loop", "html": "html"}
    incident(store, post(origin, "x"))
    patience = {"timeout_s": 1.0} if kind == "slow" else {}
    look(Looker(settings(**patience), store, now=clock, tls=certificates[1]), clock)
    assert presence(store, origin.url("x")) is told
    assert removal(store) == Removal(told is not UNKNOWN, told is GONE, timedelta(hours=1) if told is GONE else None)
    (row,) = rows(store)
    assert (row.looks, row.asked_at) == (1, clock.now)
    assert row.next_at is None or row.next_at > clock.now


def test_a_redirect_into_a_private_network_is_not_followed_even_where_it_is_the_same_host(
    store, clock, origin, certificates
):
    origin.kinds = {"x": f"to {origin.url('secret')}"}
    incident(store, post(origin, "x"))
    look(Looker(settings(networks=()), store, now=clock, tls=certificates[1]), clock)
    assert origin.asked == []
    look(Looker(settings(), store, now=clock, tls=certificates[1]), clock, 3 * HOUR_MS)
    assert origin.names == ["x", "secret"]
    assert presence(store, origin.url("x")) is UP


def test_an_instance_learns_our_name_and_what_we_look_at_and_no_more(store, looker, clock, origin):
    incident(store, post(origin, "x"))
    look(looker, clock)
    ((path, headers),) = origin.asked
    assert path == "/post/x"
    assert headers == {
        "host": f"{HERE}:{origin.port}",
        "accept": "application/activity+json",
        "accept-encoding": "identity",
        "user-agent": "fediwarden",
    }


def test_a_post_that_stays_is_looked_at_six_times_in_two_weeks(store, looker, clock, origin):
    incident(store, post(origin, "x"))
    turns(looker, clock, until=NOON + 16 * DAY_MS, step=HOUR_MS)
    assert len(origin.asked) == len(LOOKS_MS)
    (row,) = rows(store)
    assert (row.state, row.looks, row.next_at, row.gone_at) == ("up", 6, None, None)
    assert row.looked_at - NOON == 14 * DAY_MS


def test_a_post_confirmed_late_is_looked_at_once_for_all_that_went_by(store, looker, clock, origin):
    incident(store, post(origin, "x"))
    clock.now = NOON + 2 * DAY_MS
    turns(looker, clock, until=NOON + 3 * DAY_MS - 1, step=30 * MINUTE)
    assert len(origin.asked) == 1
    turns(looker, clock, until=NOON + 3 * DAY_MS + HOUR_MS, step=30 * MINUTE)
    assert len(origin.asked) == 2


def test_a_post_that_is_gone_by_410_is_not_asked_for_again_and_by_404_once_more(store, looker, clock, origin):
    origin.kinds = {"a": 410, "b": 404, "c": 404}
    incident(store, *(post(origin, name) for name in "abc"))
    turns(looker, clock, until=NOON + HOUR_MS + 10 * MINUTE)
    assert sorted(origin.names) == ["a", "b", "c"]
    origin.kinds["c"] = "note"
    turns(looker, clock, until=NOON + 20 * DAY_MS, step=6 * HOUR_MS)
    assert [origin.names.count(name) for name in "ab"] == [1, 2]
    a, b, c = rows(store)
    assert [each.state for each in (a, b, c)] == ["gone", "gone", "up"]
    assert NOON + HOUR_MS <= b.gone_at < NOON + HOUR_MS + 10 * MINUTE  # as first found
    assert c.gone_at is None


def test_a_look_that_tells_nothing_leaves_what_an_earlier_one_found(store, looker, clock, origin):
    incident(store, post(origin, "x"))
    look(looker, clock)
    origin.kinds = {"x": 500}
    look(looker, clock, 6 * HOUR_MS)
    (row,) = rows(store)
    assert (row.state, row.looked_at, row.asked_at) == ("up", NOON + HOUR_MS, NOON + 6 * HOUR_MS)
    turns(looker, clock, until=NOON + 30 * DAY_MS, step=3 * HOUR_MS)
    (row,) = rows(store)
    assert (row.state, row.next_at) == ("up", None)
    assert len(origin.asked) < 60


@in_both
def test_an_instance_is_asked_by_one_connection_and_once_a_minute_and_others_beside_it(store, looker, clock, origin):
    incident(store, *(post(origin, f"{n}", host=host, actor=f"{n}") for n in range(4) for host in (HERE, "localhost")))
    clock.now = NOON + HOUR_MS
    turns(looker, clock, until=NOON + HOUR_MS + 59_000, step=5_000)
    assert sorted(headers["host"].partition(":")[0] for _, headers in origin.asked) == [HERE, "localhost"]
    turns(looker, clock, until=NOON + HOUR_MS + 3 * MINUTE + 30_000, step=5_000)
    assert len(origin.asked) == 8
    assert origin.most_at_once <= 2


@pytest.mark.parametrize("after", ["7200", formatdate((NOON + HOUR_MS + 7_200_000) / 1000, usegmt=True)])
def test_an_instance_that_asks_for_rest_gets_it_for_all_its_posts_also_after_a_restart(
    store, looker, clock, origin, certificates, after
):
    origin.kinds = {"a": (429, after), "b": (429, after)}
    incident(store, post(origin, "a"), post(origin, "b"))
    clock.now = NOON + HOUR_MS
    turns(looker, clock, until=NOON + HOUR_MS)
    assert len(origin.asked) == 1
    again = Looker(settings(), store, now=clock, tls=certificates[1])
    turns(again, clock, until=NOON + 3 * HOUR_MS - 1, step=10 * MINUTE)
    assert len(origin.asked) == 1
    origin.kinds = {}
    turns(again, clock, until=NOON + 3 * HOUR_MS + 5 * MINUTE)
    assert sorted(set(origin.names)) == ["a", "b"]
    assert removal(store) == Removal(2, 0, None)


def test_nobody_keeps_us_away_for_ever(store, looker, clock, origin):
    origin.kinds = {"x": (503, "999999999999")}
    incident(store, post(origin, "x"))
    look(looker, clock)
    (row,) = rows(store)
    assert row.next_at == clock.now + DAY_MS


def test_who_ends_between_a_look_and_its_record_asks_again_an_hour_later_and_no_sooner(
    store, looker, clock, origin, certificates, monkeypatch
):
    incident(store, post(origin, "x"))
    monkeypatch.setattr(looking.Looker, "_note", _end)
    with pytest.raises(KeyboardInterrupt):
        look(looker, clock)
    monkeypatch.undo()
    assert (presence(store, origin.url("x")), len(origin.asked)) == (UNKNOWN, 1)
    again = Looker(settings(), store, now=clock, tls=certificates[1])
    turns(again, clock, until=NOON + 2 * HOUR_MS - 1, step=5 * MINUTE)
    assert len(origin.asked) == 1
    turns(again, clock, until=NOON + 2 * HOUR_MS)
    assert (presence(store, origin.url("x")), len(origin.asked)) == (UP, 2)


def _end(*_: object) -> None:
    raise KeyboardInterrupt


@in_both
def test_only_posts_of_confirmed_images_at_their_authors_own_instance_are_looked_at(store, looker, clock, origin):
    message = post(origin, "message").model_copy(update={"place": Place.MESSAGE})
    banner = post(origin, "banner").model_copy(update={"place": Place.BANNER})
    others = [
        seen(2, HERE, post=origin.url("unconfirmed"), actor="x"),
        seen(3, HERE, post=origin.url("disputed"), actor="x"),
        seen(4, HERE, post=origin.url("list"), actor="x"),
        seen(5, HERE, post=origin.url("list-dismissed"), actor="x"),
        seen(6, HERE, post=origin.url("other-list"), actor="x"),
        post(origin, "foreign", author="innocent.example"),
        seen(1, HERE, post="javascript:alert(1)", actor="x"),
        seen(1, HERE, post=f"http://{HERE}:{origin.port}/post/plain", actor="x"),
        seen(1, HERE, post="", actor="x"),
    ]
    hits = [judged(image, Decision.REJECT, stage=Stage.LIST, hash_list="good@1") for image in (4, 5)]
    hits.append(judged(6, Decision.REJECT, stage=Stage.LIST, hash_list="bad@1"))
    write(store, [judged(image, Decision.REJECT) for image in (2, 3)], hits, [message, banner, *others])
    confirm(store, 3, opinions=("confirm", "dismiss"))
    confirm(store, 2, opinions=("confirm",))
    confirm(store, 5, opinions=("dismiss",))
    incident(store, post(origin, "x"))
    looker._verified_lists = frozenset({"good"})
    clock.now = NOON + HOUR_MS
    turns(looker, clock, until=NOON + HOUR_MS + 15 * MINUTE)
    assert sorted(origin.names) == ["list", "x"]


@in_both
def test_a_confirmation_that_is_taken_back_takes_the_post_with_it(store, looker, clock, origin):
    incident(store, post(origin, "x"))
    look(looker, clock)
    assert len(rows(store)) == 1
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE reviews SET opinion = 'dismiss' WHERE reviewer = 'r0'")
    look(looker, clock, 2 * HOUR_MS)
    assert rows(store) == []


@in_both
def test_what_is_kept_of_a_post_goes_when_its_author_is_forgotten_and_when_its_time_is_over(
    store, looker, clock, origin
):
    incident(store, post(origin, "x", actor="x"), post(origin, "y", actor="y"))
    look(looker, clock)
    write(store, [forgotten("x", at=NOON + 1)])
    assert [row.post_url for row in rows(store)] == [origin.url("y")]
    write(store, [post(origin, "x", actor="x")])  # read again by a rebuild
    recorder = write(store)
    look(looker, clock, 2 * HOUR_MS)
    assert [row.post_url for row in rows(store)] == [origin.url("y")]
    recorder._retention_days = 30
    recorder.tidy(NOON + 40 * DAY_MS)
    look(looker, clock, 40 * DAY_MS)
    assert rows(store) == []


def test_a_rebuild_keeps_what_was_found(store, looker, clock, origin):
    said = [judged(1, Decision.REJECT), post(origin, "x")]
    recorder = write(store, said)
    confirm(store, 1)
    look(looker, clock)
    recorder.clear()
    look(looker, clock, 2 * HOUR_MS)
    assert presence(store, origin.url("x")) is UP
    write(store, said)
    look(looker, clock, 3 * HOUR_MS)
    assert [row.looks for row in rows(store)] == [1]


def test_clocks_that_are_wrong_make_no_removal_slow_fast_or_early(store, looker, clock, origin):
    times = {"past": 0, "future": NOON + 400 * DAY_MS, "recent": NOON - HOUR_MS}
    incident(
        store,
        *(post(origin, name, posted=at) for name, at in times.items()),
        post(origin, "observed-later", at=NOON + 9 * DAY_MS),
        post(origin, "long-ago", at=NOON - 15 * DAY_MS),
    )
    asyncio.run(looker.turn())
    known = {row.post_url.rpartition("/")[2]: row.known_at for row in rows(store)}
    assert known == {"past": NOON, "future": NOON, "recent": NOON - HOUR_MS, "observed-later": NOON}
    clock.now = NOON - 400 * DAY_MS  # set back: nothing is due, nothing breaks
    asyncio.run(looker.turn())


@in_both
def test_of_an_instance_that_floods_no_more_is_looked_at_than_can_be(store, clock, origin, certificates):
    many = [post(origin, f"{n}", actor=f"{n}", at=NOON + n) for n in range(30)]
    incident(store, *many, post(origin, "other", host="localhost"))
    origin.kinds = {f"{n}": 410 for n in range(30)}
    clock.now = NOON + HOUR_MS
    small = Looker(settings(waiting_posts=5), store, now=clock, tls=certificates[1])
    asyncio.run(small.turn())
    assert sorted(row.domain for row in rows(store)) == [HERE] * 5 + ["localhost"]
    turns(small, clock, until=NOON + 2 * HOUR_MS)
    assert removal(store).removed == 30


@in_both
def test_survivors_count_so_that_there_is_a_median_only_where_more_than_half_are_gone(store, looker, clock, origin):
    assert removal(store, "never-met.example") == Removal(0, 0, None)
    incident(store, *(post(origin, name) for name in "abcd"))
    origin.kinds = {"a": 410, "b": 410}
    clock.now = NOON + HOUR_MS
    turns(looker, clock, until=NOON + HOUR_MS + 10 * MINUTE)
    assert removal(store) == Removal(4, 2, None)
    origin.kinds["c"] = 410
    look(looker, clock, DAY_MS)
    turns(looker, clock, until=NOON + DAY_MS + 10 * MINUTE)
    found = removal(store)
    assert (found.looked_at, found.removed) == (4, 3)
    assert found.median is not None
    assert timedelta(hours=1) < found.median <= timedelta(days=1, minutes=1)


def test_looks_come_at_their_ages_and_tries_get_rarer_and_end():
    now = known = NOON
    ages = []
    while (due := next_look(known, now)) is not None:
        now = due
        ages.append(due - known)
    assert tuple(ages) == LOOKS_MS
    now, tries = known + HOUR_MS, []
    while (due := next_try(known, now)) is not None:
        assert due - now >= HOUR_MS or due - known in LOOKS_MS
        now = due
        tries.append(due)
    assert GIVEN_UP_MS <= now - known < 2 * GIVEN_UP_MS
    assert len(tries) < 40
    assert next_try(known, known - 400 * DAY_MS) is not None


def test_it_is_off_unless_somebody_turns_it_on(store, origin):
    incident(store, post(origin, "x"))
    assert not PresenceSettings().enabled
    asyncio.run(asyncio.wait_for(run_presence(PresenceSettings(), store), 5))
    assert rows(store) == []


def test_a_database_that_is_away_is_waited_for_and_nothing_beside_it_is_disturbed(
    store, origin, certificates, monkeypatch
):
    incident(store, post(origin, "x"))
    monkeypatch.setattr("federation_audit.presence.service._RETRY_S", 0.01)
    genuine, left = store.reading, [StoreUnavailable("away"), StoreUnavailable("away"), ZeroDivisionError("a fault")]

    def failing() -> Any:
        if left:
            raise left.pop()
        return genuine()

    monkeypatch.setattr(store, "reading", failing)

    async def go() -> None:
        task = asyncio.create_task(run_presence(settings(), store, now=lambda: NOON + HOUR_MS, tls=certificates[1]))
        async with asyncio.timeout(60):
            while not origin.asked:
                await asyncio.sleep(0.02)
        task.cancel()
        async with watching(settings(), store, ()):
            await asyncio.sleep(0)

    asyncio.run(go())
    assert left == []
