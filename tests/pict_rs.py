"""A small server that does what pict-rs 0.5 does, as far as fediwarden sees it; and that can be made to misbehave.

In a thread (`running_pict_rs`), or as a process: `python -m tests.pict_rs --port 8080 --folder DIR`. All it keeps is in
its folder, one folder a file: a restart loses nothing, and a test can look for itself.

    GET  /healthz
    POST /image                     multipart; asks `validation` first, as pict-rs does
    GET  /image/original/{alias}
    GET  /internal/hashes?slug=&limit=      X-Api-Token
    POST /internal/purge?alias=             X-Api-Token; done a moment later, as pict-rs's queue does
    POST /behaviour?mode=&seconds=&everywhere=      how it answers /internal/* (or everything) from now on
"""

import argparse
import base64
import contextlib
import hashlib
import json
import secrets
import shutil
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, urlsplit

import httpx
from python_multipart.multipart import FormParser, parse_options_header

API_KEY = "a-key-for-the-tests"
VALIDATION_TIMEOUT_S = 8.0
CHUNK = 8192
FORMATS = {
    "image/apng": 0,
    "image/gif": 2,
    "image/avif": 4,
    "image/jpeg": 5,
    "image/jxl": 6,
    "image/png": 7,
    "image/webp": 8,
    "video/mp4": 9,
    "video/webm": 10,
}
ANIMATED_AVIF, ANIMATED_WEBP = 1, 3
MEDIA_TYPES = {number: name for name, number in FORMATS.items()} | {1: "image/avif", 3: "image/webp"}
"""What the last byte of pict-rs's hash stands for: the animated kinds have the media types of the still ones."""
DATA = "data"

Mode = Literal["well", "error", "hang", "slow", "drop"]


def slug_of(pict_rs_hash: bytes) -> str:
    return base64.urlsafe_b64encode(pict_rs_hash).decode()


class Files:
    """What pict-rs keeps: below `folder` one folder a hash (by its hex), with the file `data` and one file an alias."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.RLock()

    def keep(self, data: bytes, format_byte: int) -> str:
        """Store a file, or give a stored one another alias; the alias."""
        key = hashlib.sha256(data).digest() + len(data).to_bytes(6, "big") + bytes([format_byte])
        alias = f"{secrets.token_hex(8)}.{MEDIA_TYPES[format_byte].partition('/')[2]}"
        with self._lock:
            place = self._folder / key.hex()
            if not place.exists():
                fresh = self._folder / f"new-{secrets.token_hex(8)}"
                fresh.mkdir()
                (fresh / DATA).write_bytes(data)
                fresh.rename(place)
            (place / alias).touch()
        return alias

    def places(self) -> list[Path]:
        """The folder of every hash, newest first."""
        with self._lock:  # else one may be removed while it is looked at
            found = [place for place in self._folder.iterdir() if not place.name.startswith("new-")]
            return sorted(found, key=lambda place: (place.stat().st_ctime_ns, place.name), reverse=True)

    def sha256s(self) -> set[str]:
        """Hex sha256 of every file that is kept."""
        return {place.name[:64] for place in self.places()}

    def aliases(self, place: Path) -> list[str]:
        return sorted(entry.name for entry in place.iterdir() if entry.name != DATA)

    def place_of(self, alias: str) -> Path | None:
        return next((place for place in self.places() if (place / alias).exists()), None)

    def page(self, slug: str | None, limit: int) -> list[dict[str, Any]]:
        """Hashes from the one that `slug` names on, newest first; from the newest where it names none that is there."""
        with self._lock:
            places = self.places()
            with contextlib.suppress(StopIteration, ValueError):
                wanted = base64.urlsafe_b64decode(slug or "").hex()
                places = places[next(n for n, place in enumerate(places) if place.name == wanted) :]
            return [{"hex": p.name, "aliases": self.aliases(p), "details": None} for p in places[:limit]]

    def remove(self, place: Path) -> None:
        with self._lock:
            shutil.rmtree(place, ignore_errors=True)


class PictRsServer(ThreadingHTTPServer):
    """The server. `requests` holds method and path of all it was asked; `purge_after_s` is its queue's delay."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, folder: Path, *, validation: str | None = None, api_key: str = API_KEY) -> None:
        self.files = Files(folder)
        self.validation = validation
        self.api_key = api_key
        self.purge_after_s = 0.05
        self.requests: list[tuple[str, str]] = []
        self.mode: Mode = "well"
        self.seconds = 0.0
        self.everywhere = False
        self.changed = threading.Condition()
        self.asking = httpx.Client(timeout=VALIDATION_TIMEOUT_S, trust_env=False)
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def behave(self, mode: Mode, *, seconds: float = 1.0, everywhere: bool = False) -> None:
        """Answer well, with 500, never, after `seconds`, or with a reset connection; what hangs now is let go."""
        with self.changed:
            self.mode, self.seconds, self.everywhere = mode, seconds, everywhere
            self.changed.notify_all()

    def asked(self, path: str) -> int:
        """How many requests for `path` have come."""
        return sum(1 for _, each in self.requests if each == path)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no news."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PictRsServer

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        body = self._body()
        self.server.requests.append((self.command, address.path))
        if address.path == "/behaviour":
            mode = query.get("mode", "well")
            assert mode in get_args(Mode)
            seconds, everywhere = float(query.get("seconds", 1)), query.get("everywhere") == "1"
            self.server.behave(mode, seconds=seconds, everywhere=everywhere)  # type: ignore[arg-type]
            self._answer(200, {"msg": "ok"})
        elif self._misbehaves(address.path):
            return
        elif address.path == "/healthz":
            self._answer(200, {"msg": "ok"})
        elif address.path == "/image":
            self._upload(body)
        elif address.path.startswith("/image/original/"):
            self._original(address.path.rpartition("/")[2])
        elif address.path.startswith("/internal/") and self.headers["X-Api-Token"] != self.server.api_key:
            self._answer(401, {"msg": "Invalid API key", "code": "unauthorized"})
        elif address.path == "/internal/hashes":
            limit = int(query.get("limit", 20))
            found = self.server.files.page(query.get("slug"), limit + 1)
            slugs = [slug_of(bytes.fromhex(entry["hex"])) for entry in found]
            page = {"limit": limit, "current": slugs[0] if slugs else None, "hashes": found[:limit]}
            page |= {"next": slugs[limit]} if len(slugs) > limit else {}  # pict-rs leaves out what there is none of
            self._answer(200, {"msg": "ok", "page": page})
        elif address.path == "/internal/purge":
            self._purge(query["alias"])
        else:
            self._answer(404, {"msg": "Not found", "code": "not-found"})

    def _misbehaves(self, path: str) -> bool:
        server = self.server
        if server.mode == "well" or not (server.everywhere or path.startswith("/internal/")):
            return False
        if server.mode == "slow":
            time.sleep(server.seconds)
            return False
        self.close_connection = True
        if server.mode == "error":
            self._answer(500, {"msg": "made to fail", "code": "test"})
        elif server.mode == "hang":
            with server.changed:
                server.changed.wait_for(lambda: server.mode != "hang", 600)
        # Without lingering, close sends a reset.
        if server.mode == "drop":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return True

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _upload(self, body: bytes) -> None:
        stored = []
        for data, media_type in self._uploads(body):
            refusal = self._refusal(data, media_type)
            if refusal is not None:
                self._answer(*refusal)
                return
            alias = self.server.files.keep(data, FORMATS[media_type])
            stored.append(
                {"file": alias, "delete_token": secrets.token_hex(8), "details": {"content_type": media_type}}
            )
        self._answer(201, {"msg": "ok", "files": stored})

    def _uploads(self, body: bytes) -> list[tuple[bytes, str]]:
        found: list[tuple[bytes, str]] = []

        def note(file: Any) -> None:
            file.file_object.seek(0)
            # pict-rs looks at the content; here the part's own type counts, so that any bytes will do.
            found.append((file.file_object.read(), file.content_type if file.content_type in FORMATS else "image/jpeg"))

        kind, options = parse_options_header(self.headers["content-type"])
        parser = FormParser(
            kind.decode(), None, note, boundary=options[b"boundary"], config={"MAX_MEMORY_FILE_SIZE": 64 << 20}
        )
        parser.write(body)
        parser.finalize()
        return found

    def _refusal(self, data: bytes, media_type: str) -> tuple[int, dict[str, str]] | None:
        """What the uploader is told when the validation endpoint does not accept; None when it does."""
        if self.server.validation is None:
            return None
        pieces = (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))
        try:
            answer = self.server.asking.post(
                self.server.validation, content=pieces, headers={"Content-Type": media_type, "User-Agent": "pict-rs"}
            )
        except httpx.HTTPError as error:
            return 500, {"msg": f"Error in http client: {error}", "code": "http-client-error"}
        if answer.is_success:
            return None
        return 400, {"msg": "Failed external validation", "code": "failed-external-validation"}

    def _original(self, alias: str) -> None:
        place = self.server.files.place_of(alias)
        if place is None:
            self._answer(404, {"msg": "Not found", "code": "not-found"})
            return
        self._send(200, MEDIA_TYPES[bytes.fromhex(place.name)[-1]], (place / DATA).read_bytes())

    def _purge(self, alias: str) -> None:
        place = self.server.files.place_of(alias)
        if place is None:
            self._answer(404, {"msg": "No such alias", "code": "missing-alias"})
            return
        aliases = self.server.files.aliases(place)
        removal = threading.Timer(self.server.purge_after_s, self.server.files.remove, [place])
        removal.daemon = True
        removal.start()
        self._answer(200, {"msg": "ok", "aliases": aliases})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _send(self, status: int, media_type: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def running_pict_rs(
    folder: Path, *, port: int = 0, validation: str | None = None, api_key: str = API_KEY
) -> Iterator[PictRsServer]:
    """The server in a thread, gone after the context."""
    with PictRsServer(port, folder, validation=validation, api_key=api_key) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.behave("well")
            server.shutdown()
            thread.join()
            server.asking.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where its files are")
    parser.add_argument("--validation", help="URL that is asked about every upload")
    parser.add_argument("--api-key", default=API_KEY)
    given = parser.parse_args()
    with PictRsServer(given.port, given.folder, validation=given.validation, api_key=given.api_key) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
