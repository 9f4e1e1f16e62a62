"""A Lemmy's own docker-compose folder, as its admin has it: a real pict-rs, and who speaks to it in Lemmy's place."""

import json
from pathlib import Path
from typing import Any

from tests.compose.deployment import COMPOSE, IMAGE, PROJECT, ROOT, execute, run

API_KEY = "a-key-for-the-tests"
PICTRS = "http://pictrs:8080"
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

volumes:
  pictrs: {{{{}}}}
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
        """Put override.pict-rs.yaml beside it, with `line` as `fediwarden init --show` prints it, and Lemmy's lines."""
        text = (ROOT / "compose" / "override.pict-rs.yaml").read_text()
        (given,) = [each for each in text.splitlines() if "/scan/KEY" in each]
        text = text.replace(given.strip(), f"- {line}")
        for commented in ("#lemmy:", "#  networks: [default, fediwarden-images]"):
            text = text.replace(commented, commented[1:])
        (self.folder / "docker-compose.override.yml").write_text(text)

    def take_override_away(self) -> None:
        (self.folder / "docker-compose.override.yml").unlink()

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
