"""compose.yaml brought up for real, and a container that stands where pict-rs would."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fediwarden import environment_file

ROOT = Path(__file__).parents[2]
COMPOSE = tuple(os.environ.get("COMPOSE_COMMAND", "docker compose").split())
ENGINE = os.environ.get("ENGINE_COMMAND", "docker")
IMAGE = "localhost/fediwarden:0.1.0-cpu"
CLIENT = "fediwarden-test-client"
PROJECT = "fediwarden-test"
NETWORKS = ("fediwarden-images", "fediwarden-database")
"""By these names others join, so there can be one fediwarden on a machine."""
OWNER = 12_345
"""Of the folder, as the account of an admin is."""
SERVICES = ("kafka", "gateway", "scanner", "enforcer", "recorder", "audit")


def run(argv: Sequence[str], *, timeout_s: float = 300, cwd: Path | None = None, check: bool = True) -> str:
    """Standard output of a command; what it said goes into the error when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, cwd=cwd, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def eventually(look: Callable[[], object], *, within_s: float, what: str) -> Any:
    """What `look` gives as soon as it gives something; AssertionError when it does not in time."""
    give_up_at = time.monotonic() + within_s
    while not (seen := look()):
        assert time.monotonic() < give_up_at, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.5)  # another process gives no event
    return seen


def find_container(project: str, service: str) -> str:
    """The id of the container of a service, running or not."""
    ours = [f"label=com.docker.compose.{name}" for name in (f"project={project}", f"service={service}")]
    filters = [each for label in ours for each in ("--filter", label)]
    (found,) = run([ENGINE, "ps", "--all", "--quiet", "--no-trunc", *filters]).split()
    return found


def execute(project: str, service: str, *argv: str, check: bool = True, timeout_s: float = 120) -> str:
    """What a command in the container of a service prints."""
    return run([ENGINE, "exec", find_container(project, service), *argv], check=check, timeout_s=timeout_s)


class Deployment:
    """The folder compose/ copied to `folder`, with a .env of its own; `services` are those that stay up."""

    def __init__(self, folder: Path, services: Sequence[str] = SERVICES) -> None:
        self.services = tuple(services)
        self.folder = folder / "compose"
        shutil.copytree(ROOT / "compose", self.folder)
        self.pictures = folder / "pictures"
        self.pictures.mkdir(mode=0o755)
        folder.chmod(0o755)
        left = self.list_left()
        assert not left, f"a fediwarden runs here, or a run of these tests was killed; remove first: {', '.join(left)}"

    def draw(self, *pictures: bytes) -> None:
        """Put pictures where the client sees them, numbered from 0 on."""
        for number, picture in enumerate(pictures):
            (self.pictures / f"{number:04}.jpg").write_bytes(picture)

    def init(self, *arguments: str) -> str:
        """``fediwarden init`` in a container, for a folder of somebody's own; what it prints."""
        os.chown(self.folder, OWNER, OWNER)
        account = ["--user", f"{OWNER}:{OWNER}", "--network", "none", "--read-only", "--cap-drop", "ALL"]
        return run([ENGINE, "run", "--rm", *account, "-v", f"{self.folder}:/out", IMAGE, "init", *arguments, "/out"])

    @property
    def values(self) -> dict[str, str]:
        """What .env says."""
        return environment_file.read(self.folder)

    def set(self, **values: str) -> None:
        """Put values into lines of .env, or add them."""
        path = self.folder / environment_file.NAME
        kept = [line for line in path.read_text().splitlines() if line.partition("=")[0] not in values]
        path.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in values.items()), ""]))

    @property
    def line_for_pict_rs(self) -> str:
        """The line that pict-rs is given, as `init` prints it: where to ask."""
        return next(environment_file.lines_for_pict_rs(self.values))

    @property
    def address(self) -> str:
        """Where pict-rs asks."""
        return self.line_for_pict_rs.partition("=")[2]

    def up(self, *services: str) -> None:
        """Bring everything up (or `services` and what they need) and wait until what stays up is healthy; say what was
        said when it does not come."""
        try:
            self.compose("up", "-d", *services)
            self.await_health()
        except AssertionError:
            self.tell()
            raise

    def await_scanner(self) -> None:
        """A scanner announces itself every few seconds; before that the gateway answers by the deadline."""
        look = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:14051/readyz').read().decode())"

        def is_announced() -> bool:
            return '"scanners":{"ok":true' in self.execute("gateway", "python", "-c", look, check=False)

        eventually(is_announced, within_s=60, what="a scanner is announced")

    @staticmethod
    def list_left() -> list[str]:
        """Containers, volumes and networks that are ours, or stand in our way."""
        left = []
        for kind in ("container", "volume", "network"):
            every = ["--all"] if kind == "container" else []
            named = "{{.Names}}" if kind == "container" else "{{.Name}}"
            names = run([ENGINE, kind, "ls", *every, "--format", named]).split()
            left += [f"{kind} {name}" for name in names if name.startswith(PROJECT) or name in NETWORKS]
        return left

    def compose(self, *arguments: str, timeout_s: float = 600, check: bool = True) -> str:
        project = ["--project-name", PROJECT]
        return run([*COMPOSE, *project, *arguments], cwd=self.folder, timeout_s=timeout_s, check=check)

    def container(self, service: str) -> str:
        """The id of the container of a service, running or not."""
        return find_container(PROJECT, service)

    def inspect(self, service: str) -> dict[str, Any]:
        (state,) = json.loads(run([ENGINE, "inspect", self.container(service)]))
        return dict(state)

    def execute(self, service: str, *argv: str, check: bool = True, timeout_s: float = 120) -> str:
        """What a command in the container of a service prints."""
        return execute(PROJECT, service, *argv, check=check, timeout_s=timeout_s)

    def log(self, service: str) -> str:
        """What a service has said, on both streams."""
        argv = [ENGINE, "logs", self.container(service)]
        both = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=True)
        return both.stdout

    def is_healthy(self, service: str) -> bool:
        state = self.inspect(service)["State"]
        return bool(state["Running"]) and state.get("Health", state.get("Healthcheck", {})).get("Status") == "healthy"

    def await_health(self, services: Sequence[str] = (), *, within_s: float = 180) -> None:
        for service in services or self.services:
            eventually(lambda name=service: self.is_healthy(name), within_s=within_s, what=f"{service} is healthy")  # type: ignore[misc]

    def kill(self, service: str) -> int:
        """kill -9 as the kernel does that is out of memory; the engine must not think that it was asked to stop it."""
        pid = int(self.inspect(service)["State"]["Pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def start_client(self) -> None:
        script = Path(__file__).with_name("client.py")
        mounts = ["-v", f"{self.pictures}:/pictures:ro", "-v", f"{script}:/client.py:ro"]
        place = ["--name", CLIENT, "--network", "fediwarden-images"]
        run([ENGINE, "run", "-d", *place, *mounts, "--entrypoint", "sleep", IMAGE, "infinity"])

    def client(self, *argv: str, check: bool = True) -> str:
        return run([ENGINE, "exec", CLIENT, *argv], check=check)

    def post(self, address: str, first: int, last: int) -> list[dict[str, Any]]:
        said = self.client("python", "/client.py", address, "/pictures", str(first), str(last))
        return [json.loads(line) for line in said.splitlines()]

    def judge(self, count: int) -> list[dict[str, Any]]:
        """Post so many pictures, which are to be judged in time; where one is not, say what every container said."""
        answers = self.post(self.address, 0, count)
        if {answer["answered_by"] for answer in answers} != {"verdict"}:
            self.tell()
        assert {answer["answered_by"] for answer in answers} == {"verdict"}, answers
        return answers

    def post_beside(self, address: str, first: int, last: int, between_s: float) -> "subprocess.Popen[str]":
        argv = ["python", "/client.py", address, "/pictures", str(first), str(last), str(between_s)]
        return subprocess.Popen([ENGINE, "exec", CLIENT, *argv], stdout=subprocess.PIPE, text=True)

    def tell(self) -> None:
        """Print the end of what every container said: why something did not come up."""
        for container in run([ENGINE, "container", "ls", "--all", "--format", "{{.Names}}"]).split():
            argv = [ENGINE, "logs", "--tail", "25", container]
            both = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            print(f"--- {container}\n{both.stdout}")

    def take_down(self, *, check: bool = False) -> None:
        """Take everything away, data too."""
        run([ENGINE, "rm", "-f", "-t", "0", CLIENT], check=False)
        self.compose("down", "--volumes", "--timeout", "40", check=check)
