"""A real Synapse on a free port, with SQLite, and what a client does with it."""

import hashlib
import hmac
import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.certificates import Authority

SECRET = "a-secret-to-register-with"
START_S = 90.0
ROOT = Path(__file__).parents[2]


def environment_folder() -> Path:
    """Where tests/synapse/install.sh has put Synapse."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fediwarden"
    lock = Path(__file__).with_name("requirements.lock").read_text()
    version = next(line for line in lock.splitlines() if line.startswith("matrix-synapse==")).split("==")[1].split()[0]
    return cache / f"synapse-{version}"


class Homeserver:
    """One Synapse with one user; ready inside the context. `module` is the config of `MediaCheck`, None for none."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        federation_port: int,
        authority: Authority,
        module: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = f"localhost:{federation_port}"
        self._folder = folder
        self._url = f"http://127.0.0.1:{port}"
        self._log = folder / "synapse.log"
        folder.mkdir(parents=True)
        certificate, key, _ = authority.issue("broker")
        modules = [{"module": "fediwarden.synapse.MediaCheck", "config": dict(module)}] if module is not None else []
        self._config = folder / "homeserver.yaml"
        self._config.write_text(
            json.dumps(
                {
                    "server_name": self.name,
                    "pid_file": str(folder / "pid"),
                    "listeners": [
                        {
                            "port": port,
                            "type": "http",
                            "bind_addresses": ["127.0.0.1"],
                            "resources": [{"names": ["client"]}],
                        },
                        {
                            "port": federation_port,
                            "type": "http",
                            "tls": True,
                            "bind_addresses": ["127.0.0.1"],
                            "resources": [{"names": ["federation"]}],
                        },
                    ],
                    "tls_certificate_path": str(certificate),
                    "tls_private_key_path": str(key),
                    "federation_custom_ca_list": [str(authority.ca_file)],
                    "ip_range_blacklist": [],
                    "federation_ip_range_blacklist": [],
                    "trusted_key_servers": [],
                    "database": {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}},
                    "media_store_path": str(folder / "media"),
                    "signing_key_path": str(folder / "signing.key"),
                    "registration_shared_secret": SECRET,
                    "macaroon_secret_key": "another-secret",
                    "form_secret": "a-third-one",
                    "report_stats": False,
                    "modules": modules,
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""

    def __enter__(self) -> Self:
        python = environment_folder() / "bin" / "python"
        command = [str(python), "-m", "synapse.app.homeserver", "-c", str(self._config)]
        # As `pip install --no-deps` does, and without a single one of our dependencies.
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(self._folder)}
        subprocess.run([*command, "--generate-keys"], check=True, env=environment, cwd=self._folder, timeout=START_S)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, cwd=self._folder, stdout=log, stderr=log)
        try:
            self._await_answer()
            self._token = self._register("alice")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill it; nothing of it is needed again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors="replace")

    def upload(self, data: bytes, media_type: str) -> httpx.Response:
        """As a client does it."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": media_type}
        return httpx.post(f"{self._url}/_matrix/media/v3/upload", content=data, headers=headers, timeout=60)

    def download(self, address: str) -> httpx.Response:
        """The media behind ``mxc://server/id``."""
        path = address.removeprefix("mxc://")
        headers = {"Authorization": f"Bearer {self._token}"}
        return httpx.get(f"{self._url}/_matrix/client/v1/media/download/{path}", headers=headers, timeout=60)

    def stored(self) -> set[bytes]:
        """Every file in its media store, as it came."""
        return {path.read_bytes() for path in (self._folder / "media").rglob("*") if path.is_file()}

    def _await_answer(self) -> None:
        give_up_at = time.monotonic() + START_S
        while True:
            assert self._process is not None
            assert self._process.poll() is None, self.log
            assert time.monotonic() < give_up_at, self.log
            try:
                if httpx.get(f"{self._url}/health", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)

    def _register(self, name: str) -> str:
        path = f"{self._url}/_synapse/admin/v1/register"
        nonce = httpx.get(path, timeout=30).json()["nonce"]
        said = "\0".join((nonce, name, "a-password", "notadmin")).encode()
        mac = hmac.new(SECRET.encode(), said, hashlib.sha1).hexdigest()
        fields = {"nonce": nonce, "username": name, "password": "a-password", "admin": False, "mac": mac}
        registered = httpx.post(path, json=fields, timeout=30)
        assert registered.status_code == 200, registered.text
        return str(registered.json()["access_token"])
