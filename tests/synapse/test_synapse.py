"""The real Synapse with our module in it, in front of a real gateway, Kafka and scanner."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from schemas.broker import BrokerSettings
from tests.certificates import Authority
from tests.kafka import find_free_ports
from tests.processes import Pipeline
from tests.stand_ins import accepted_picture, rejected_picture
from tests.synapse.homeserver import ROOT, Homeserver, environment_folder

pytestmark = [pytest.mark.synapse, pytest.mark.kafka]

REQUIRED = "FEDIWARDEN_REQUIRE_SYNAPSE"
"""Set by `make test-synapse`, which has installed Synapse: then its absence is a failure."""

KEY = "the-key-of-the-homeserver"


@dataclass(frozen=True)
class Matrix:
    """Two homeservers that know each other: ours asks the gateway, the other lets in everything."""

    ours: Homeserver
    other: Homeserver


@pytest.fixture(scope="module")
def python() -> Path:
    program = environment_folder() / "bin" / "python"
    if not program.exists() and not os.environ.get(REQUIRED):
        pytest.skip("Synapse is not installed: make test-synapse")
    return program


@pytest.fixture(scope="module")
def gateway(
    python: Path, make_topics: Callable[[], BrokerSettings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    environment = {"FEDIWARDEN_TENANTS__MATRIX__KEY": KEY, "FEDIWARDEN_GATEWAY__DEADLINE_MS": "30000"}
    with Pipeline(make_topics(), tmp_path_factory.mktemp("pipeline"), **environment) as pipeline:
        _, url = pipeline.start_gateway()
        pipeline.start_scanner()
        yield url


@pytest.fixture(scope="module")
def make_homeserver(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Homeserver]:
    folder = tmp_path_factory.mktemp("matrix")
    authority = Authority(folder / "certificates")

    def make(name: str, module: dict[str, object] | None) -> Homeserver:
        port = find_free_ports(2)
        ports = {"port": port, "federation_port": port + 1}
        return Homeserver(folder / name, authority=authority, module=module, **ports)

    return make


@pytest.fixture(scope="module")
def matrix(gateway: str, make_homeserver: Callable[..., Homeserver]) -> Iterator[Matrix]:
    module = {"url": gateway, "key": KEY, "timeout_s": 40, "on_error": "reject", "max_bytes": 1 << 20}
    with make_homeserver("ours", module) as ours, make_homeserver("other", None) as other:
        yield Matrix(ours, other)


def test_an_upload_that_is_rejected_is_refused_and_not_kept(matrix: Matrix) -> None:
    picture = rejected_picture(1)
    refused = matrix.ours.upload(picture, "image/jpeg")
    assert (refused.status_code, refused.json()["error"]) == (400, "Bad content")  # Synapse's words, whatever we say
    assert "of a local user refused: reject, answered by verdict" in matrix.ours.log
    assert picture not in matrix.ours.stored()


def test_an_upload_that_is_accepted_is_served(matrix: Matrix) -> None:
    picture = accepted_picture(1)
    kept = matrix.ours.upload(picture, "image/jpeg")
    assert kept.status_code == 200, kept.text
    assert matrix.ours.download(kept.json()["content_uri"]).content == picture


def test_what_is_no_picture_is_kept(matrix: Matrix) -> None:
    kept = matrix.ours.upload(b"an encrypted attachment", "application/octet-stream")
    assert matrix.ours.download(kept.json()["content_uri"]).content == b"an encrypted attachment"


def test_remote_media_that_is_rejected_is_not_served_and_not_kept_and_other_remote_media_is(matrix: Matrix) -> None:
    good, bad = accepted_picture(2), rejected_picture(2)
    addresses = {data: matrix.other.upload(data, "image/jpeg").json()["content_uri"] for data in (good, bad)}
    assert matrix.other.download(addresses[bad]).content == bad
    served = matrix.ours.download(addresses[good])
    assert (served.status_code, served.content) == (200, good), matrix.ours.log[-3000:]
    refused = matrix.ours.download(addresses[bad])
    assert refused.status_code >= 400
    assert refused.content != bad
    assert good in matrix.ours.stored()
    assert bad not in matrix.ours.stored()
    assert f"of {matrix.other.name} refused: reject, answered by verdict" in matrix.ours.log


def test_what_is_too_large_to_be_judged_goes_as_on_error_says(matrix: Matrix) -> None:
    large = accepted_picture(3) + bytes(1 << 20)
    assert matrix.ours.upload(large, "image/jpeg").status_code == 400
    assert "larger than max_bytes" in matrix.ours.log


@pytest.mark.parametrize(
    ("fault", "on_error", "status"),
    [
        ("away", "accept", 200),
        ("silent", "reject", 400),
        ("wrong key", "accept", 200),
        pytest.param("away", "reject", 400, marks=pytest.mark.long),
        pytest.param("silent", "accept", 200, marks=pytest.mark.long),
        pytest.param("wrong key", "reject", 400, marks=pytest.mark.long),
    ],
)
def test_a_gateway_that_gives_no_decision_closes_the_door_or_leaves_it_open_as_configured(
    gateway: str, make_homeserver: Callable[..., Homeserver], on_error: str, status: int, fault: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = {
            "away": f"http://127.0.0.1:{find_free_ports(1)}",
            "silent": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "wrong key": gateway,
        }
        module = {"url": urls[fault], "key": "not-its-key", "on_error": on_error, "timeout_s": 0.5}
        with make_homeserver(f"{fault}-{on_error}".replace(" ", "-"), module) as homeserver:
            assert homeserver.upload(accepted_picture(4), "image/jpeg").status_code == status
            assert "not judged" in homeserver.log
            assert "not-its-key" not in homeserver.log


CONFIG = """
import sys
from fediwarden.synapse import MediaCheck
from synapse.module_api.errors import ConfigError
ours = {"gateway", "scanner", "schemas", "aiokafka", "structlog", "fastapi", "numpy"}
assert not ours & {name.partition(".")[0] for name in sys.modules}
good = {"url": "http://127.0.0.1:1", "on_error": "reject", "timeout_s": 2}
assert MediaCheck.parse_config(good).on_error == "reject"
for name, value in [("url", 1), ("url", "127.0.0.1"), ("on_error", "perhaps"), ("timeout_s", 0), ("timeout_s", "1"),
                    ("max_bytes", True), ("on_eror", "accept"), ("key", None)]:
    try:
        MediaCheck.parse_config(good | {name: value})
    except ConfigError as error:
        assert name in str(error), error
    else:
        raise AssertionError(name)
"""


def test_the_module_needs_nothing_but_synapse_and_names_what_is_wrong_in_its_configuration(python: Path) -> None:
    ran = subprocess.run(
        [python, "-c", CONFIG],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
