"""`fediwarden demo` as a newcomer runs it, at a reduced size: all of the real services, and the pages at the end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.kafka import cache_dir, java_options

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

WITHIN_S = 420.0


class Running:
    """One `fediwarden demo`, with what it prints in a file."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.output = folder.with_name(f"{folder.name}-{time.monotonic_ns()}.txt")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FEDIWARDEN_")}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fediwarden", "demo", f"--data-dir={folder}", *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=inherited
                | {
                    "FEDIWARDEN_CACHE_DIR": str(cache_dir()),
                    "FEDIWARDEN_KAFKA__JAVA_OPTIONS": json.dumps(java_options()),
                    "FEDIWARDEN_GATEWAY__PORT": "1",  # somebody's real setting, which is no business of the demo's
                }
                | environment,
            )

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()  # what it started is tied to it
                self.process.wait()

    @property
    def text(self) -> str:
        return self.output.read_text()

    def end(self) -> int:
        return self.process.wait(WITHIN_S)

    def await_text(self, wanted: str) -> str:
        give_up_at = time.monotonic() + WITHIN_S
        while wanted not in self.text:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text}"
            assert time.monotonic() < give_up_at, f"no {wanted!r} in:\n{self.text}"
            time.sleep(0.1)
        return self.text


@pytest.mark.long
def test_a_small_week_comes_out_as_it_has_to_and_is_shown_again(tmp_path):
    folder = tmp_path / "demo"
    with Running(folder, "--check", "--images=150") as demo:
        assert demo.end() == 0, f"{demo.text}\n{(folder / 'up.log').read_text()[-5000:]}"
        assert "All as it has to be." in demo.text
        assert "A recommendation asks for 200 images" in demo.text  # this size shows less, and says so
        assert re.search(r"twilight\.example +2 restrict", demo.text)
        assert re.search(r"metropolis\.example +0 insufficient", demo.text)

    with Running(folder) as demo:
        said = demo.await_text("Ctrl-C stops everything")
        assert "what it left is shown again" in said
        assert re.search(r"twilight\.example +2 restrict", said)
        address = re.search(r"Look at it: (http://127\.0\.0\.1:\d+)", said)
        password = re.search(r"^ +alice +(\S+)", said, re.MULTILINE)
        assert address and password
        with httpx.Client(base_url=address[1], follow_redirects=True) as browser:
            proof = re.search(r'name="csrf" value="([^"]+)"', browser.get("/login").text)
            assert proof
            form = {"name": "alice", "password": password[1], "csrf": proof[1]}
            page = browser.post("/login", data=form, headers={"origin": address[1]})
            assert page.status_code == 200
            assert "alice" in page.text
        demo.process.send_signal(signal.SIGINT)
        assert demo.end() == 0


def test_when_the_services_do_not_start_their_own_words_are_shown(tmp_path):
    with Running(tmp_path / "demo", FEDIWARDEN_KAFKA__MIN_FREE_GB="1000000") as demo:
        assert demo.end() == 1
        assert "`fediwarden up` ended" in demo.text
        assert "MIN_FREE_GB" in demo.text  # the remedy that `up` names
        assert "Traceback" not in demo.text
