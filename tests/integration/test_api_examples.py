"""The examples of docs/api.md, each run as it stands there, against a real gateway."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.settings import TenantSettings
from schemas.broker import BrokerSettings
from schemas.messages import Decision
from tests.gateways import RunningGateway, running_gateway
from tests.responder import Responder
from tests.stand_ins import accepted_picture

pytestmark = pytest.mark.kafka

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KEY, TOKEN = "a-key-for-the-examples", "a-token-for-the-examples"


@pytest.fixture
def gateway(fresh_kafka: BrokerSettings) -> Iterator[RunningGateway]:
    tenants = {"default": TenantSettings(key=SecretStr(KEY))}
    more = {"deadline_ms": 20_000, "admin_token": SecretStr(TOKEN)}
    with (
        Responder(fresh_kafka, lambda _: Decision.ACCEPT),
        running_gateway(fresh_kafka, tenants=tenants, **more) as running,
    ):
        yield running.ready()


def test_every_example_of_the_page_does_what_it_says(gateway: RunningGateway, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(accepted_picture(1))
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FEDIWARDEN_URL": gateway.url,
        "FEDIWARDEN_KEY": KEY,
        "FEDIWARDEN_ADMIN_TOKEN": TOKEN,
    }
    blocks = BLOCK.findall(PAGE.read_text())
    assert {language for language, _ in blocks} == {"sh", "python"}

    def run(*command: str) -> str:
        ran = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
        assert (ran.returncode, ran.stderr) == (0, ""), (command, ran.stdout, ran.stderr)
        return ran.stdout

    shell = "\n".join(text for language, text in blocks if language == "sh")
    said = run("bash", "-euo", "pipefail", "-c", shell)
    assert '"answered_by":"verdict"' in said
    assert '"verdict":{"decision":"accept"' in said
    assert '"set_by":"alice"' in said
    assert '"ready":true' in said
    assert "fediwarden_gateway_overrides" in said
    for language, text in blocks:
        if language == "python":
            assert run(sys.executable, "-c", text) == "True\n"
    gateway.stop()
    assert [run(sys.executable, "-c", text) for language, text in blocks if language == "python"] == ["False\n"]
