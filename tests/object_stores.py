"""Stores that a sweep reads, the real things: a folder, an S3-compatible server, SFTP servers. Each in a context."""

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.kafka import find_free_ports

S3_KEY, S3_SECRET, BUCKET = "test-key-id", "test-secret", "media"
PASSWORD = "correct horse"
_START_S = 120.0


class ObjectStore(ABC):
    """One store with a root: `source` names it for `fediwarden sweep`, `settings` are those of SweepSettings."""

    source: str
    settings: dict[str, Any]

    @abstractmethod
    def put(self, path: str, data: bytes) -> None: ...

    @abstractmethod
    def paths(self) -> set[str]: ...

    @abstractmethod
    def delete(self, path: str) -> None: ...

    @abstractmethod
    def get(self, path: str) -> bytes: ...


class _OnDisk(ObjectStore):
    def __init__(self, root: Path, source: str, settings: dict[str, Any]) -> None:
        self.root, self.source, self.settings = root, source, settings

    def put(self, path: str, data: bytes) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        for each in (place, *place.parents):
            if each == self.root:
                break
            shutil.chown(each, self.root.stat().st_uid)

    def paths(self) -> set[str]:
        return {str(each.relative_to(self.root)) for each in self.root.rglob("*") if each.is_file()}

    def delete(self, path: str) -> None:
        (self.root / path).unlink()

    def get(self, path: str) -> bytes:
        return (self.root / path).read_bytes()


class Sftp(_OnDisk):
    """An SFTP server that can be stopped and started; `user` is who it is, whose files it serves."""

    def __init__(self, root: Path, port: int, user: str, settings: dict[str, Any], start: Callable[[], Any]) -> None:
        super().__init__(root, f"sftp://{user}@127.0.0.1:{port}{root}", settings)
        self._start = start
        self._running: Any = start()

    def stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    def start(self) -> None:
        self._running = self._start()


class S3(ObjectStore):
    def __init__(self, port: int, client: Any) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.source = f"s3://{BUCKET}/cache"
        self.settings = {"s3_endpoint": self.endpoint, "s3_key_id": S3_KEY, "s3_secret": S3_SECRET}
        self._client = client
        self.connection: Any = None

    def put(self, path: str, data: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=f"cache/{path}", Body=data)

    def paths(self) -> set[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="cache/")
        return {each["Key"].removeprefix("cache/") for page in pages for each in page.get("Contents", ())}

    def delete(self, path: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=f"cache/{path}")

    def get(self, path: str) -> bytes:
        data: bytes = self._client.get_object(Bucket=BUCKET, Key=f"cache/{path}")["Body"].read()
        return data

    @contextmanager
    def letting_nobody_in(self) -> Iterator[None]:
        """Within it every key is refused."""
        address = f"{self.endpoint}/moto-api/reset-auth"
        httpx.post(address, content="0").raise_for_status()
        try:
            yield
        finally:
            httpx.post(address, content="inf").raise_for_status()


@contextmanager
def running_folder(folder: Path) -> Iterator[ObjectStore]:
    folder.mkdir()
    yield _OnDisk(folder, str(folder), {})


@contextmanager
def running_s3(folder: Path) -> Iterator[S3]:
    """moto's server, as a process."""
    from botocore.config import Config
    from botocore.session import get_session

    port = find_free_ports(1)
    log = (folder / "moto.log").open("wb")
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log)
    try:
        _await(lambda: _listens(port), server)
        client = get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=S3_KEY,
            aws_secret_access_key=S3_SECRET,
            config=Config(s3={"addressing_style": "path"}),
        )
        client.create_bucket(Bucket=BUCKET)
        yield S3(port, client)
    finally:
        server.kill()
        server.wait()
        log.close()


class _Stoppable:
    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def stop(self) -> None:
        """With the processes of its connections, which outlive it."""
        for child in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self._process.kill()
        self._process.wait()


def find_sshd() -> Path | None:
    """OpenSSH's server: the system's, or what tests/openssh.sh put into the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fediwarden" / "openssh"
    found = next((each for each in (Path("/usr/sbin/sshd"), cache / "usr/sbin/sshd") if each.exists()), None)
    assert found or not os.environ.get("FEDIWARDEN_REQUIRE_SSHD"), "no sshd: sh tests/openssh.sh"
    return found


@contextmanager
def running_sshd(sshd: Path) -> Iterator[Sftp]:
    """OpenSSH's sshd as it is, for one user: us, or nobody where we are root, as root's needs a user of its own.

    With PAM, as without it an account that has no password counts as locked.
    """
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    home = Path(tempfile.mkdtemp(prefix="fediwarden-sshd-", dir="/tmp"))
    home.chmod(0o755)
    try:
        root = home / "files"
        root.mkdir()
        (home / "server").mkdir()
        for name in ("server/host_key", "client_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)], check=True)
        shutil.copy(home / "client_key.pub", home / "server/authorized_keys")
        port = find_free_ports(1)
        host_key = (home / "server/host_key.pub").read_text().split()[:2]
        (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(host_key)}\n")
        (home / "server/config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/server/host_key\nPidFile none\nUsePAM yes\n"
            f"AuthorizedKeysFile {home}/server/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
            "Subsystem sftp internal-sftp\nForceCommand internal-sftp\n"
        )
        for each in (home / "server", root, *(home / "server").iterdir()):
            os.chown(each, user.pw_uid, user.pw_gid)
        if not sshd.is_relative_to("/usr"):  # where that user may not look
            for each in (sshd, *sshd.parents[2].rglob("libwrap.so.0")):
                shutil.copy(each, home / each.name)
            sshd = home / sshd.name

        # Only root may say who it wants to be, and we are the user already where we are not root.
        of_root = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
        become: dict[str, Any] = of_root if os.getuid() == 0 else {}

        def start() -> _Stoppable:
            with (home / "sshd.log").open("ab") as log:
                process = subprocess.Popen(
                    [str(sshd), "-D", "-e", "-f", str(home / "server/config")],
                    env={"LD_LIBRARY_PATH": str(home), "PATH": os.defpath},
                    **become,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                )
            _await(lambda: _speaks(port), process)
            return _Stoppable(process)

        settings = {"sftp_identity": home / "client_key", "sftp_known_hosts": home / "known_hosts"}
        server = Sftp(root, port, user.pw_name, settings, start)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home)


@contextmanager
def running_asyncssh(folder: Path) -> Iterator[Sftp]:
    """asyncssh's own SFTP server, with a password."""
    import asyncssh

    root = folder / "files"
    root.mkdir()
    port = find_free_ports(1)
    key = asyncssh.generate_private_key("ssh-ed25519")
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")

    connections: list[Any] = []

    class WithPassword(asyncssh.SSHServer):  # type: ignore[misc]
        def connection_made(self, connection: Any) -> None:
            connections.append(connection)

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return username == "ada" and password == PASSWORD

    class Running:
        def __init__(self) -> None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()

            async def listen() -> Any:
                return await asyncssh.listen(
                    "127.0.0.1", port, server_factory=WithPassword, server_host_keys=[key], sftp_factory=True
                )

            self._server = asyncio.run_coroutine_threadsafe(listen(), self._loop).result(60)

        def stop(self) -> None:
            async def end() -> None:
                self._server.close()
                while connections:
                    connections.pop().abort()
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
                await asyncio.sleep(0.1)

            asyncio.run_coroutine_threadsafe(end(), self._loop).result(60)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    server = Sftp(root, port, "ada", {"sftp_password": PASSWORD, "sftp_known_hosts": known_hosts}, Running)
    try:
        yield server
    finally:
        server.stop()


def _listens(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port), timeout=2).close()
    return True


def _speaks(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        return connection.recv(4) == b"SSH-"


def _await(ready: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _START_S
    while True:
        assert process.poll() is None, f"ended with {process.returncode}"
        try:
            if ready():
                return
        except OSError:
            pass
        assert time.monotonic() < end, "it does not answer"
        time.sleep(0.1)
