"""compose.home-listener.yaml and compose.home-scanner.yaml, as docs/home-scanner.md says, certificates first.

Home is one network away from the listener, and nothing else of the server is on that network.

The tests run in this order.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.deployment import (
    COMPOSE,
    ENGINE,
    IMAGE,
    OWNER,
    PROJECT,
    ROOT,
    Deployment,
    eventually,
    find_container,
    run,
)
from tests.stand_ins import accepted_picture, rejected_picture

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1200)]

AT_HOME = f"{PROJECT}-at-home"
PICTURES = 60
KAFKA_ACCOUNT, OUR_ACCOUNT = 1000, 10_001


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("house"))
    deployment.draw(*(rejected_picture(at) if at % 2 else accepted_picture(at) for at in range(PICTURES)))
    try:
        yield deployment
    finally:
        deployment.take_down()


class Home:
    """The folder compose/ on the other machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "at-home"
        shutil.copytree(ROOT / "compose", self.folder)
        file = self.folder / "compose.home-scanner.yaml"
        way_there = f"networks:\n  outside: {{external: true, name: {PROJECT}_home}}"
        text = file.read_text()
        assert "networks:\n  outside: {}" in text
        file.write_text(text.replace("networks:\n  outside: {}", way_there))
        (self.folder / "home").mkdir()

    def bring(self, name: str, content: str, owner: int) -> None:
        path = self.folder / name
        path.write_text(content)
        path.chmod(0o600)
        os.chown(path, owner, owner)

    def compose(self, *arguments: str, check: bool = True) -> str:
        files = ["--project-name", AT_HOME, "--file", "compose.home-scanner.yaml"]
        return run([*COMPOSE, *files, *arguments], cwd=self.folder, timeout_s=300, check=check)

    def log(self) -> str:
        return self.compose("logs", "scanner")


@pytest.fixture(scope="module")
def home(house: Deployment) -> Iterator[Home]:
    home = Home(house.folder.parent)
    try:
        yield home
    finally:
        home.compose("down", "--volumes", "--timeout", "40", check=False)


def test_kafka_gets_a_certificate_and_one_more_door(house: Deployment) -> None:
    house.init()
    account = ["--user", f"{OWNER}:{OWNER}", "--network", "none", "-v", f"{house.folder}:/out"]
    certs = ["kafka", "certs", "--folder", "/out/kafka-certs", "--host", "kafka"]
    run([ENGINE, "run", "--rm", *account, IMAGE, *certs])
    os.chown(house.folder / "kafka-certs" / "kafka.pem", KAFKA_ACCOUNT, KAFKA_ACCOUNT)
    house.set(COMPOSE_FILE="compose.yaml:compose.home-listener.yaml", HOME_LISTENER_HOST="kafka")
    house.up()
    house.start_client()


def test_the_scanner_at_home_judges_in_place_of_the_servers(house: Deployment, home: Home) -> None:
    add = ["fediwarden", "kafka", "users", "add", "home-scanner", "--role", "home-scanner"]
    password = house.execute("gateway", *add).split()[-1]
    shutil.copyfile(house.folder / "kafka-certs" / "ca.pem", home.folder / "home" / "ca.pem")
    (home.folder / "home" / "ca.pem").chmod(0o644)
    home.bring("home/keys.json", house.execute("gateway", "cat", "/data/keys.json"), OUR_ACCOUNT)
    env = (home.folder / "home-scanner.env.example").read_text()
    env = env.replace("kafka.lemmy.example", "kafka").replace("SASL_PASSWORD=", f"SASL_PASSWORD={password}")
    home.bring("home-scanner.env", env, OWNER)
    home.compose("up", "-d")
    eventually(lambda: "scanner_ready" in home.log(), within_s=120, what="the scanner at home is ready")
    house.compose("stop", "scanner")
    house.await_scanner()
    answers = eventually(lambda: _judged(house), within_s=60, what="both pictures are judged at home")
    assert [answer["status"] for answer in answers] == [200, 406]
    assert password not in home.log()


def test_it_reaches_nothing_else(house: Deployment) -> None:
    look = (
        "import socket\n"
        "for host, port in (('kafka', 9092), ('gateway', 14051), ('audit', 14052)):\n"
        "    try:\n"
        "        socket.create_connection((host, port), timeout=2).close()\n"
        "        print(host, port)\n"
        "    except OSError:\n"
        "        pass\n"
    )
    reached = run([ENGINE, "exec", find_container(AT_HOME, "scanner"), "python", "-c", look])
    # 9092 is kept from the world by not being published (compose.home-listener.yaml); here home shares Kafka's network.
    assert reached.split("\n")[:-1] in ([], ["kafka 9092"])


def test_shut_out_it_judges_no_more(house: Deployment) -> None:
    house.execute("gateway", "fediwarden", "kafka", "users", "remove", "home-scanner")
    fresh = iter(range(2, PICTURES))

    def is_unjudged() -> bool:
        at = next(fresh)
        (answer,) = house.post(house.address, at, at + 1)
        return answer["answered_by"] in ("deadline", "overload")

    eventually(is_unjudged, within_s=60, what="nobody judges any more")
    house.compose("start", "scanner")
    house.await_health()
    eventually(lambda: not is_unjudged(), within_s=60, what="the server's own judges again")


def _judged(house: Deployment) -> list[dict[str, object]] | None:
    answers = house.post(house.address, 0, 2)
    return answers if all(answer["answered_by"] in ("verdict", "known") for answer in answers) else None
