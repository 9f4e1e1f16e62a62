"""A real pict-rs in a folder of its own, and what its internal API knows."""

import base64
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.pict_rs import MEDIA_TYPES

VERSION = "0.5.24"
API_KEY = "a-key-for-the-tests"
START_S = 30.0
STOP_S = 10.0


def program_folder() -> Path:
    """Where build.sh puts pict-rs and, where it is needed, magick."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "fediwarden" / f"pict-rs-{VERSION}" / "bin"


@dataclass(frozen=True, slots=True)
class Upload:
    """pict-rs's answer to an upload: `alias` of the stored file where there is one, `code` of the error else."""

    status: int
    alias: str = ""
    content_type: str = ""
    code: str = ""


class PictRs:
    """pict-rs on `port`, with all it keeps below `folder`, asking `validation` about every file.

    It is set as it comes; with `fetches_locally`, it also fetches pictures of "other" servers that are on this machine.
    A context manager: started and answering inside, gone after.
    """

    def __init__(self, folder: Path, port: int, validation: str, *, fetches_locally: bool = False) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "pict-rs.log"
        self._files = folder / "files"
        self._environment = {
            **os.environ,
            "PATH": f"{program_folder()}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PICTRS__SERVER__ADDRESS": f"127.0.0.1:{port}",
            "PICTRS__SERVER__API_KEY": API_KEY,
            "PICTRS__SERVER__TEMPORARY_DIRECTORY": str(folder / "tmp"),
            "PICTRS__STORE__PATH": str(self._files),
            "PICTRS__REPO__PATH": str(folder / "repo"),
            "PICTRS__OLD_REPO__PATH": str(folder / "old-repo"),
            "PICTRS__CLIENT__ALLOW_LOCAL_CONNECTIONS": str(fetches_locally).lower(),
            "PICTRS__TRACING__LOGGING__NO_ANSI": "true",
            "PICTRS__MEDIA__EXTERNAL_VALIDATION": validation,
            "PICTRS__MEDIA__EXTERNAL_VALIDATION_TIMEOUT": "8",
        }
        (folder / "tmp").mkdir(parents=True)
        self._client = httpx.Client(base_url=self.url, timeout=60.0)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program_folder() / "pict-rs", "run"], env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_until(self._answers, START_S, "pict-rs to answer")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._stop()

    @property
    def log(self) -> str:
        """What it said."""
        return self._log.read_text()

    def _stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"pict-rs ended: {self._log.read_text()[-2000:]}")
        try:
            return self._client.get("/healthz").is_success
        except httpx.TransportError:
            return False

    def upload(self, data: bytes, name: str = "upload") -> Upload:
        """Upload one file as Lemmy does."""
        response = self._client.post("/image", files={"images[]": (name, data)})
        body = response.json()
        if response.status_code != 201:
            return Upload(response.status_code, code=body["code"])
        stored = body["files"][0]
        return Upload(201, alias=stored["file"], content_type=stored["details"]["content_type"])

    def original(self, alias: str) -> httpx.Response:
        """The stored file as pict-rs serves it."""
        return self._client.get(f"/image/original/{alias}")

    def _hashes(self, **query: str | int) -> list[dict[str, Any]]:
        response = self._client.get("/internal/hashes", params=query, headers={"X-Api-Token": API_KEY})
        response.raise_for_status()
        hashes: list[dict[str, Any]] = response.json()["page"]["hashes"]
        return hashes

    def known_hashes(self) -> set[str]:
        """Hex sha256 of every file that pict-rs keeps (of the newest thousand)."""
        return {entry["hex"][:64] for entry in self._hashes(limit=1000)}

    def aliases(self, sha256: bytes, length: int, media_type: str) -> list[str]:
        """The aliases of the stored file with this hash, length and media type; none when it is not stored."""
        for format_byte in (number for number, name in MEDIA_TYPES.items() if name == media_type):
            key = sha256 + length.to_bytes(6, "big") + bytes([format_byte])
            slug = base64.urlsafe_b64encode(key).decode("ascii")
            for entry in self._hashes(slug=slug, limit=1):
                # A hash that is not there is answered with the newest page.
                if entry["hex"].lower() == key.hex():
                    return list(entry["aliases"])
        return []

    def stored_files(self) -> set[Path]:
        """Every file in its store."""
        return {path for path in self._files.rglob("*") if path.is_file()}


def wait_until(condition: Any, seconds: float, what: str) -> None:
    """Return when `condition()` is true.

    Raises:
        TimeoutError: it was not within `seconds`.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)
