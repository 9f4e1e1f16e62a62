"""A Lemmy's own docker-compose folder, as its admin has it; pict-rs and PostgreSQL are real, Lemmy has a stand-in."""

import json
import re
from pathlib import Path
from typing import Any

import psycopg

from tests import lemmy as tables
from tests.compose.deployment import COMPOSE, ENGINE, IMAGE, PROJECT, ROOT, eventually, execute, find_container, run

API_KEY = "a-key-for-the-tests"
PICTRS = "http://pictrs:8080"
VERSION = "1.0"
"""Of the Lemmy whose tables are in the database."""
READER = "postgresql://fediwarden:reads-only@postgres:5432/lemmy"
"""Where fediwarden finds the database, as the role that docs/lemmy.md makes."""
_OWNER_PASSWORD = "owns-it"
_PROJECT = f"{PROJECT}-lemmy"
_SERVICES = f"""\
services:
  pictrs:
    image: docker.io/asonix/pictrs:0.5.24
    hostname: pictrs
    user: 991:991
    environment:
      - PICTRS__SERVER__API_KEY={API_KEY}
    volumes:
      - pictrs:/mnt
    restart: always

  lemmy:
    image: {IMAGE}
    entrypoint: [sleep, infinity]
    volumes:
      - {{pictures}}:/pictures:ro
      - {Path(__file__).with_name("uploader.py")}:/uploader.py:ro
    restart: always

  postgres:
    image: docker.io/library/postgres:18-alpine
    environment:
      - POSTGRES_USER=lemmy
      - POSTGRES_PASSWORD={_OWNER_PASSWORD}
      - POSTGRES_DB=lemmy
    volumes:
      - postgres:/var/lib/postgresql
    restart: always

volumes:
  pictrs: {{{{}}}}
  postgres: {{{{}}}}
"""


class Lemmy:
    """The folder, below `folder`; `pictures` are seen by the container that uploads."""

    def __init__(self, folder: Path, pictures: Path) -> None:
        self.folder = folder / "lemmy"
        self.folder.mkdir()
        (self.folder / "docker-compose.yml").write_text(_SERVICES.format(pictures=pictures))

    def compose(self, *arguments: str) -> str:
        return run([*COMPOSE, "--project-name", _PROJECT, *arguments], cwd=self.folder, timeout_s=300)

    def override(self, line: str) -> None:
        """Put override.pict-rs.yaml beside it, all of it, with `line` as `fediwarden init --show` prints it."""
        text = (ROOT / "compose" / "override.pict-rs.yaml").read_text()
        (given,) = [each for each in text.splitlines() if "/scan/KEY" in each]
        text = text.replace(given.strip(), f"- {line}")
        text = re.sub(r"(?m)^  #(lemmy:|postgres:|fediwarden-database:|  networks:|  external:)", r"  \1", text)
        (self.folder / "docker-compose.override.yml").write_text(text)

    def take_override_away(self) -> None:
        (self.folder / "docker-compose.override.yml").unlink()

    def make_tables(self) -> tables.Lemmy:
        """Make Lemmy's tables, and the role that docs/lemmy.md makes; returns who writes rows as Lemmy."""
        (state,) = json.loads(run([ENGINE, "inspect", find_container(_PROJECT, "postgres")]))
        address = state["NetworkSettings"]["Networks"][f"{_PROJECT}_default"]["IPAddress"]
        url = f"postgresql://lemmy:{_OWNER_PASSWORD}@{address}/lemmy"

        def connect() -> psycopg.Connection[Any] | None:
            try:
                return psycopg.connect(url, autocommit=True)
            except psycopg.OperationalError:  # nobody listens yet
                return None

        with eventually(connect, within_s=60, what="PostgreSQL is up") as connection:
            connection.execute(tables.schema_of(VERSION))
            connection.execute("CREATE ROLE fediwarden LOGIN PASSWORD 'reads-only' CONNECTION LIMIT 3")
            connection.execute(tables.grants_of(VERSION, "fediwarden"))
        return tables.Lemmy(url, VERSION)

    def upload(self, number: int, *, to: str = PICTRS, token: str = "") -> tuple[int, str]:
        """The status, and the alias of what was stored, of picture `number`."""
        said = self._speak("upload", to, f"/pictures/{number:04}.jpg", token)
        if said["status"] >= 500:
            self.tell()
        files = said["body"].get("files") or [{}]
        return int(said["status"]), str(files[0].get("file", ""))

    def fetch(self, alias: str, *, to: str = PICTRS) -> tuple[int, str]:
        """The status, and the SHA-256 of what is served."""
        said = self._speak("fetch", to, alias)
        return int(said["status"]), str(said["sha256"])

    def tell(self) -> None:
        """Print what pict-rs said: why something went wrong."""
        print(self.compose("logs", "--tail", "60", "pictrs"))

    def take_down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "10")

    def _speak(self, *arguments: str) -> dict[str, Any]:
        return dict(json.loads(execute(_PROJECT, "lemmy", "python", "/uploader.py", *arguments)))
