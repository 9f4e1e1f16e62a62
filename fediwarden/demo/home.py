"""The demo's own data directory: its settings, its list of forbidden pictures, and a note of what is done."""

import fcntl
import hashlib
import io
import json
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from PIL import Image

from federation_audit.accounts.passwords import make_password
from fediwarden.demo.pictures import draw
from fediwarden.demo.world import HOME, forbidden_motifs, make_week
from fediwarden.settings import CONFIG_VARIABLE, FILE_NAME, PREFIX
from gateway.frames.pdq import pdq
from gateway.lists.definition import ListDefinition
from gateway.lists.sources import fetch_hashes
from gateway.lists.store import ListStore

LIST: Final = "demo-forbidden-stars"
ADMIN: Final = "admin"
REVIEWERS: Final = ("alice", "bob")

_NOTE: Final = "demo.json"
_FORMAT: Final = 1
_LIST_FILE: Final = "demo-forbidden-stars.txt"
_POLICY: Final = Path(__file__).with_name("policy.toml")
_PORTS_FROM, _PORTS_TO = 14_060, 14_960
_DRAWN: Final = 20
"""So many of the week's pictures tell whether this release and its Pillow draw the same files; each format is there."""

_PORTS: Final = 4
"""Gateway, pages, and two for Kafka."""

_KEPT_VARIABLES: Final = frozenset(
    f"{PREFIX}{name}"
    for name in ("CACHE_DIR", "KAFKA__HOME", "KAFKA__HEAP_MB", "KAFKA__JAVA_OPTIONS", "KAFKA__MIN_FREE_GB")
)
"""What the machine needs. Every other setting is the demo's own: it must not meet anybody's real instance."""


class DemoRefused(Exception):
    """The demo cannot run in this directory; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Home:
    """A data directory with a demo in it. `began_at` is the "today" that the week was made for, `made_of` the digest of
    that week, its pictures and the policy: of another week nothing can be found again in what was sent.

    `passwords` are of accounts that this demo alone has, on this machine alone: they are kept to be shown again.
    """

    folder: Path
    seed: int
    images: int
    began_at: datetime
    made_of: str
    is_complete: bool = False
    port: int = 0
    passwords: dict[str, str] = field(default_factory=dict, repr=False)
    origins_token: str = field(default="", repr=False)

    @classmethod
    def open(cls, folder: Path, *, seed: int, images: int | None, default_images: int) -> "Home":
        """The demo in `folder`, begun now where there is none. Raises `DemoRefused`."""
        note = folder / _NOTE
        try:
            if not note.exists():
                if folder.exists() and any(folder.iterdir()):
                    raise DemoRefused(
                        f"{folder} holds something else than a demo. Give the demo a directory of its own: --data-dir."
                    )
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                wanted = default_images if images is None else images
                home = cls(
                    folder=folder,
                    seed=seed,
                    images=wanted,
                    began_at=datetime.now(UTC),
                    made_of=_digest(seed, wanted),
                    passwords={name: make_password() for name in (ADMIN, *REVIEWERS)},
                    origins_token=secrets.token_hex(24),
                )
                home.save()
                return home
            known = json.loads(note.read_text(encoding="utf-8"))
            if known.pop("format", None) != _FORMAT:
                raise DemoRefused(f"The demo in {folder} is of another release. Remove the directory, or use another.")
            home = cls(folder=folder, **known | {"began_at": datetime.fromisoformat(known["began_at"])})
            is_same = home.made_of == _digest(home.seed, home.images)
        except OSError as error:
            raise DemoRefused(f"{folder} cannot be used: {error.strerror}. Choose another: --data-dir.") from error
        except (ValueError, TypeError, KeyError) as error:
            raise DemoRefused(f"{note} is damaged. Remove the directory {folder}, or use another.") from error
        if not is_same:
            raise DemoRefused(
                f"The demo in {folder} was begun with another week, other pictures or another policy than this release"
                " has. Remove the directory, or use another: --data-dir."
            )
        if images is not None and images != home.images:
            raise DemoRefused(
                f"The demo in {folder} was begun with --images {home.images}. Leave --images out to go on with it,"
                " or remove the directory, or use another: --data-dir."
            )
        return home

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other demo away from the directory. Raises `DemoRefused`."""
        with (self.folder / "demo.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DemoRefused(
                    f"A demo runs in {self.folder} already, at {self.pages_url}. Stop it, or use another: --data-dir."
                ) from None
            yield

    def save(self) -> None:
        """Write the note, for the next run."""
        plain = {name: value for name, value in asdict(self).items() if name != "folder"}
        text = json.dumps({"format": _FORMAT, **plain, "began_at": self.began_at.isoformat()}, indent=2)
        _write_private(self.folder / _NOTE, text)

    def completed(self) -> "Home":
        """The same, noted as complete."""
        home = replace(self, is_complete=True)
        home.save()
        return home

    def with_ports(self) -> "Home":
        """The same with ports that are free now, the ones it had where they are."""
        home = replace(self, port=_find_ports(self.port))
        home.save()
        return home

    @property
    def gateway_port(self) -> int:
        """Where the gateway listens."""
        return self.port

    @property
    def pages_port(self) -> int:
        """Where the pages are, and where origins are told."""
        return self.port + 1

    @property
    def pages_url(self) -> str:
        """The pages' address."""
        return f"http://127.0.0.1:{self.pages_port}"

    @property
    def log_file(self) -> Path:
        """What `fediwarden up` and all its services say."""
        return self.folder / "up.log"

    def configure(self) -> Path:
        """Write the settings, take every other fediwarden setting out of the environment, and give the file's path."""
        for name in list(os.environ):
            if name.startswith(PREFIX) and name not in _KEPT_VARIABLES:
                del os.environ[name]
        file = self.folder / FILE_NAME
        lines = [
            "# Written by `fediwarden demo` at every start.",
            f"data_dir = {_quoted(str(self.folder))}",
            "[gateway]",
            f"port = {self.gateway_port}",
            "[kafka]",
            f"port = {self.port + 2}",
            "[scanner]",
            f"policy = {_quoted(str(_POLICY))}",
            "[audit]",
            "assess_every_s = 5",
            "[audit.pages]",
            f"port = {self.pages_port}",
            "[tenants.default]",
            f"domain = {_quoted(HOME)}",
            f"origins_token = {_quoted(self.origins_token)}",
        ]
        _write_private(file, "\n".join(lines) + "\n")
        os.environ[CONFIG_VARIABLE] = str(file)
        return file

    def write_list(self) -> int:
        """Make the list of forbidden pictures, as `fediwarden lists add` does; how many hashes it has."""
        source = self.folder / _LIST_FILE
        lines = ["# Made by `fediwarden demo`: shapes that it draws itself. It knows nothing of anything real."]
        lines += [f"pdq {_look(draw(motif, self.seed).data)}" for motif in forbidden_motifs()]
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
        definition = ListDefinition(
            name=LIST,
            source=str(source),
            reason="A forbidden star of the demo.",
            responsible="fediwarden demo",
            guarded=False,  # a flood of stars is what it is there for
        )
        hashes = fetch_hashes(definition, most=len(lines)).hashes
        store = ListStore(self.folder / "lists")
        with store.locked():
            store.save(definition, hashes)
        return len(hashes)


def _digest(seed: int, images: int) -> str:
    """Of all that a demo is made of: the posts, what is forbidden, how some of the pictures are drawn, the policy."""
    week = make_week(seed, images)
    digest = hashlib.sha256(repr((week, forbidden_motifs())).encode())
    for post in week[:_DRAWN]:
        digest.update(draw(post.motif, seed, post.copy).data)
    digest.update(_POLICY.read_bytes())
    return digest.hexdigest()


def _look(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as picture:
        return pdq(picture.convert("RGB")).pdq.hex()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # as TOML writes strings


def _write_private(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}.new")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
        opened.write(text)
    part.replace(file)


def _find_ports(wanted: int) -> int:
    """The first of four free ports in a row: `wanted` where it can be. Raises `DemoRefused`."""
    for first in ([wanted] if wanted else []) + list(range(_PORTS_FROM, _PORTS_TO, 10)):
        if _are_free(range(first, first + _PORTS)):
            return first
    raise DemoRefused(f"There are no {_PORTS} free ports between {_PORTS_FROM} and {_PORTS_TO}. Stop what holds them.")


def _are_free(ports: Sequence[int]) -> bool:
    for port in ports:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
                trial.listen(1)
            except OSError:
                return False
    return True
