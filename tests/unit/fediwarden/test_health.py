import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fediwarden.health import examine, main

_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(b"kafka is away")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_only_200_is_well(server: str) -> None:
    assert examine(f"http://{server}/readyz") is None
    assert examine(f"http://{server}/other") == "503 kafka is away"


def test_nobody_who_answers_is_not_well() -> None:
    said = examine("http://127.0.0.1:1/readyz")
    assert said is not None
    assert said.startswith("no answer")


def test_a_connection_counts_when_it_is_open_and_to_that_port(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    missing = tmp_path / "tcp6"
    to_kafka = "   0: 0A580102:B1F4 0A580103:2384 {state} 00000000:00000000 00:00000000 00000000 10001 0 1 1\n"
    table.write_text(_HEAD + to_kafka.format(state="01"))
    assert examine("connection:9092", [table, missing]) is None
    assert examine("connection:9093", [table, missing]) == "no connection to port 9093"
    table.write_text(_HEAD + to_kafka.format(state="06"))
    assert examine("connection:9092", [table, missing]) == "no connection to port 9092"


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pigeon"]) == 1
    assert "write http://" in capsys.readouterr().out
