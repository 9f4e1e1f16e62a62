"""The jars: locked, fetched whole or not at all, and never run when they differ from the lock."""

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fediwarden.kafka.errors import DiskFull, JarRefused, JarsUnavailable
from fediwarden.kafka.jars import (
    KAFKA_VERSION,
    LockedJar,
    fetch_jars,
    find_missing,
    prepare_jars,
    read_lock,
    verify_jars,
    write_lock,
)
from fediwarden.kafka.repositories import list_repositories

CONTENT = bytes(range(256)) * 400


def locked(name: str, content: bytes = CONTENT) -> LockedJar:
    return LockedJar(f"test.jars:{name}:1.0", f"{name}-1.0.jar", hashlib.sha256(content).hexdigest(), len(content))


class Repository:
    """A Maven repository on loopback. `served` maps a file name to its bytes; `cut` names files that stop half-way."""

    def __init__(self) -> None:
        self.served: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.asked: list[str] = []
        repository = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                repository.asked.append(name)
                content = repository.served.get(name)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if name in repository.cut else content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/maven2"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    served = Repository()
    yield served
    served.close()


def test_the_committed_lock_names_kafka_and_everything_it_needs_once():
    jars = read_lock()
    assert f"kafka_2.13-{KAFKA_VERSION}.jar" == jars[0].file
    assert len(jars) == len({jar.file for jar in jars}) == 45
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in jars)
    assert any(jar.file.startswith("log4j-slf4j-impl") for jar in jars), "without it Kafka logs nothing"


def test_a_written_lock_reads_back_as_it_was(tmp_path):
    write_lock((locked("a"), locked("b")), tmp_path / "lock.json")
    assert read_lock(tmp_path / "lock.json") == (locked("a"), locked("b"))


def test_an_unreadable_lock_is_refused(tmp_path):
    (tmp_path / "lock.json").write_text('{"jars": [{"file": 1}]}')
    with pytest.raises(JarRefused, match="lock"):
        read_lock(tmp_path / "lock.json")


def test_jars_are_fetched_under_their_names_and_pass(tmp_path, repository):
    jars = (locked("a"), locked("b", b"other" * 1000))
    repository.served = {"a-1.0.jar": CONTENT, "b-1.0.jar": b"other" * 1000}
    seen = []
    fetch_jars(tmp_path / "jars", jars, report=lambda *at: seen.append(at), repositories=[repository.url])
    verify_jars(tmp_path / "jars", jars)
    assert sorted(path.name for path in (tmp_path / "jars").iterdir()) == ["a-1.0.jar", "b-1.0.jar"]
    total = len(CONTENT) + 5000
    assert seen[-1] == (total, total)
    assert find_missing(tmp_path / "jars", jars) == ()


def test_a_download_that_stops_half_way_leaves_no_jar(tmp_path, repository):
    repository.served = {"a-1.0.jar": CONTENT}
    repository.cut = {"a-1.0.jar"}
    with pytest.raises((JarsUnavailable, JarRefused), match=r"a-1\.0\.jar"):
        fetch_jars(tmp_path / "jars", (locked("a"),), repositories=[repository.url])
    assert list((tmp_path / "jars").iterdir()) == []


def test_a_download_the_user_interrupts_leaves_no_jar(tmp_path, repository):
    repository.served = {"a-1.0.jar": CONTENT}

    class Interrupted(Exception):
        pass

    def interrupt(done: int, total: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        fetch_jars(tmp_path / "jars", (locked("a"),), report=interrupt, repositories=[repository.url])
    assert list((tmp_path / "jars").iterdir()) == []


def test_a_repository_that_serves_something_else_is_refused_by_the_jars_name(tmp_path, repository):
    repository.served = {"a-1.0.jar": CONTENT[:-1] + b"!"}
    with pytest.raises(JarRefused, match=r"a-1\.0\.jar.*sha256"):
        fetch_jars(tmp_path / "jars", (locked("a"),), repositories=[repository.url])
    assert list((tmp_path / "jars").iterdir()) == []


def test_the_second_repository_is_asked_for_what_the_first_does_not_have(tmp_path, repository):
    empty = Repository()
    repository.served = {"a-1.0.jar": CONTENT}
    fetch_jars(tmp_path / "jars", (locked("a"),), repositories=[empty.url, repository.url])
    empty.close()
    assert "a-1.0.jar" in empty.asked
    verify_jars(tmp_path / "jars", (locked("a"),))


def test_a_jar_of_the_local_maven_cache_is_taken_only_when_it_is_the_locked_one(tmp_path, repository):
    cached = tmp_path / "m2" / "test" / "jars" / "a" / "1.0" / "a-1.0.jar"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    fetch_jars(tmp_path / "jars", (locked("a"),), repositories=[repository.url])
    assert repository.asked == []

    cached.write_bytes(b"tampered with")
    repository.served = {"a-1.0.jar": CONTENT}
    fetch_jars(tmp_path / "others", (locked("a"),), repositories=[repository.url])
    assert "a-1.0.jar" in repository.asked
    verify_jars(tmp_path / "others", (locked("a"),))


def test_when_nothing_can_be_fetched_the_message_names_the_ways_out(tmp_path, repository):
    with pytest.raises(JarsUnavailable) as raised:
        fetch_jars(tmp_path / "jars", (locked("a"),), repositories=[repository.url, "http://user:pw@127.0.0.1:1/m"])
    message = str(raised.value)
    for way in ("KAFKA_HOME", "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS", "settings.xml", "a-1.0.jar"):
        assert way in message
    assert "pw" not in message


def test_a_full_disk_is_told_before_anything_is_fetched(tmp_path, repository):
    huge = LockedJar("test.jars:a:1.0", "a-1.0.jar", "0" * 64, 1 << 60)
    with pytest.raises(DiskFull, match="FEDIWARDEN_CACHE_DIR"):
        fetch_jars(tmp_path / "jars", (huge,), repositories=[repository.url])
    assert repository.asked == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
    ],
)
def test_a_jar_that_differs_from_the_lock_is_named_and_refused(tmp_path, spoil: Callable[[Path], object]):
    for name in ("a", "b"):
        (tmp_path / f"{name}-1.0.jar").write_bytes(CONTENT)
    verify_jars(tmp_path, (locked("a"), locked("b")))
    spoil(tmp_path / "b-1.0.jar")
    with pytest.raises(JarRefused, match=r"b-1\.0\.jar.*[Dd]elete") as raised:
        verify_jars(tmp_path, (locked("a"), locked("b")))
    assert "a-1.0.jar" not in str(raised.value)


def test_an_installations_jars_are_used_as_they_are(tmp_path):
    libs = tmp_path / "home" / "libs"
    libs.mkdir(parents=True)
    for name in ("kafka_2.13-4.1.0.jar", "other.jar"):
        (libs / name).write_bytes(b"anything")
    assert prepare_jars(tmp_path / "cache", home=tmp_path / "home") == (
        libs / "kafka_2.13-4.1.0.jar",
        libs / "other.jar",
    )
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("jar", [None, "kafka_2.13-3.9.1.jar", "something.jar"])
def test_an_installation_without_kafka_4_is_refused(tmp_path, jar):
    libs = tmp_path / "libs"
    libs.mkdir()
    if jar:
        (libs / jar).write_bytes(b"")
    with pytest.raises(JarsUnavailable, match="KAFKA_HOME"):
        prepare_jars(tmp_path / "cache", home=tmp_path)


def test_mirrors_of_central_come_first_then_jgos_repositories_then_central(tmp_path):
    settings = tmp_path / "settings.xml"
    settings.write_text(
        """<settings xmlns="http://maven.apache.org/SETTINGS/1.2.0"><mirrors>
        <mirror><id>a</id><mirrorOf>central</mirrorOf><url>https://mirror.example/maven/</url></mirror>
        <mirror><id>b</id><mirrorOf>jboss</mirrorOf><url>https://jboss.example</url></mirror>
        <mirror><id>c</id><mirrorOf>*,!central</mirrorOf><url>https://rest.example</url></mirror>
        <mirror><id>d</id><mirrorOf>*</mirrorOf><url>http://0.0.0.0/</url><blocked>true</blocked></mirror>
        </mirrors></settings>"""
    )
    found = list_repositories({"ours": "https://ours.example/m2"}, settings)
    assert found[:2] == ["https://mirror.example/maven", "https://ours.example/m2"]
    assert len(found) == 3


@pytest.mark.parametrize("content", [None, "<settings>", ""])
def test_without_readable_maven_settings_central_is_asked(tmp_path, content):
    settings = tmp_path / "settings.xml"
    if content is not None:
        settings.write_text(content)
    assert len(list_repositories({}, settings)) == 1
