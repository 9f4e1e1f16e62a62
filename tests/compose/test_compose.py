"""compose.yaml, from `fediwarden init` to `down`, in containers (make test-compose). The tests run in this order."""

import json
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fediwarden.environment_file import ADMIN_TOKEN, NAME, TENANT_KEY
from tests.compose.deployment import ENGINE, OWNER, SERVICES, Deployment, eventually, run
from tests.stand_ins import accepted_picture, rejected_picture

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1200)]

OURS = tuple(service for service in SERVICES if service != "kafka")
FIRST, LOAD = 6, 90  # pictures: the first few by hand, the others while things are killed


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("house"))
    drawn = [rejected_picture(at) if at % 2 else accepted_picture(at) for at in range(FIRST)]
    drawn += [accepted_picture(at) if at % 5 else rejected_picture(at) for at in range(FIRST, FIRST + LOAD)]
    deployment.draw(*drawn)
    try:
        yield deployment
    finally:
        deployment.take_down()


def test_init_works_in_a_container_before_anything_else_does(house: Deployment) -> None:
    said = house.init()
    written = (house.folder / NAME).stat()
    assert stat.S_IMODE(written.st_mode) == 0o600
    assert written.st_uid == OWNER
    assert f"PICTRS__MEDIA__EXTERNAL_VALIDATION={house.address}" in said
    before = (house.folder / NAME).read_bytes()
    with pytest.raises(AssertionError, match=r"is\s+there\s+already"):
        house.init()
    assert (house.folder / NAME).read_bytes() == before


def test_everything_comes_up_and_is_well(house: Deployment) -> None:
    house.up()
    assert house.inspect("prepare")["State"]["ExitCode"] == 0
    house.start_client()


def test_an_image_is_judged_for_a_container_on_the_network_of_pict_rs(house: Deployment) -> None:
    house.await_scanner()
    answers = house.judge(FIRST)
    assert [answer["status"] for answer in answers] == [200, 406] * (FIRST // 2)
    rejected = answers[1]["scan_id"]
    read_back = (
        "import urllib.request as r; print(r.urlopen(r.Request('http://fediwarden:14051/v1/scans/"
        f"{rejected}', headers={{'Authorization': 'Bearer {house.values[TENANT_KEY]}'}})).read().decode())"
    )
    report = json.loads(house.client("python", "-c", read_back))
    assert report["verdict"]["decision"] == "reject"
    assert report["verdict"]["rules"]


def test_without_the_key_nothing_is_judged(house: Deployment) -> None:
    wrong = house.address.replace(house.values[TENANT_KEY], "a" * 48)
    (answer,) = house.post(wrong, 0, 1)
    assert answer["status"] == 401


def test_what_decodes_strangers_files_is_shut_in_completely(house: Deployment) -> None:
    said = json.loads(house.execute("gateway", "fediwarden", "doctor", "--json", check=False))
    (sandbox,) = [each for each in said if each["subject"] == "sandbox"]
    assert sandbox["health"] == "ok", sandbox


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_no_rights_to_misuse(house: Deployment, service: str) -> None:
    state = house.inspect(service)
    assert state["HostConfig"]["ReadonlyRootfs"]
    status = house.execute(service, "cat", "/proc/self/status")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert fields["Uid"].split()[0] == ("1000" if service == "kafka" else "10001")
    for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
        assert int(fields[name], 16) == 0, name
    assert fields["NoNewPrivs"].strip() == "1"
    assert fields["Seccomp"].strip() == "2"
    tried = run(
        [ENGINE, "exec", house.container(service), "sh", "-c", "echo x >/usr/x 2>/dev/null && echo written"],
        check=False,
    )
    assert "written" not in tried


def test_secrets_are_only_where_they_are_needed(house: Deployment) -> None:
    values = house.values
    holders = {
        name: {service for service in SERVICES if secret in json.dumps(house.inspect(service)["Config"]["Env"])}
        for name, secret in ((TENANT_KEY, values[TENANT_KEY]), (ADMIN_TOKEN, values[ADMIN_TOKEN]))
    }
    assert holders == {TENANT_KEY: {"gateway"}, ADMIN_TOKEN: {"gateway"}}
    logs = "".join(house.log(service) for service in SERVICES)
    assert "gateway" in logs
    assert values[TENANT_KEY] not in logs
    assert values[ADMIN_TOKEN] not in logs


def test_pict_rs_reaches_the_gateway_and_nothing_else(house: Deployment) -> None:
    addresses = {
        service: [each["IPAddress"] for each in house.inspect(service)["NetworkSettings"]["Networks"].values()]
        for service in SERVICES
    }
    ports = {"kafka": 9092, "audit": 14052, "gateway": 14051, "enforcer": 14051, "scanner": 14051, "recorder": 14051}
    tries = [(service, each, ports[service]) for service in SERVICES for each in addresses[service] if each]
    look = f"""
import socket
for service, address, port in {tries!r}:
    try:
        socket.create_connection((address, port), timeout=2).close()
        print(service)
    except OSError:
        pass
try:
    print(socket.getaddrinfo("kafka", 9092))
except OSError:
    pass
"""
    assert house.client("python", "-c", look).split() == ["gateway"]


def test_only_the_pages_are_published_and_only_to_this_machine(house: Deployment) -> None:
    published = {
        service: [
            (each["HostIp"], each["HostPort"])
            for bindings in (house.inspect(service)["HostConfig"]["PortBindings"] or {}).values()
            for each in bindings
        ]
        for service in SERVICES
    }
    assert published == {service: [("127.0.0.1", "14052")] if service == "audit" else [] for service in SERVICES}
    assert _listening_beyond_loopback() == []
    for service in ("kafka", "gateway", "scanner", "enforcer", "recorder"):  # no way out
        routes = house.execute(service, "cat", "/proc/net/route").splitlines()[1:]
        assert all(line.split()[1] != "00000000" for line in routes), service


def test_the_pages_answer_and_an_account_can_log_in(house: Deployment) -> None:
    password = house.execute("audit", "fediwarden", "users", "add", "ada", "--role", "admin", "--make").splitlines()[-1]
    page = httpx.get("http://127.0.0.1:14052/login")
    assert page.status_code == 200
    assert "fediwarden" in page.text
    assert len(password) >= 12


def test_killed_containers_come_back_and_no_image_is_lost(house: Deployment) -> None:
    load = house.post_beside(house.address, FIRST, FIRST + LOAD, between_s=0.7)
    restarted = {}
    for service in ("scanner", "gateway", "kafka"):
        time.sleep(6)
        before = house.kill(service)
        restarted[service] = eventually(
            lambda name=service, old=before: house.inspect(name)["State"]["Pid"] not in (0, old),  # type: ignore[misc]
            within_s=60,
            what=f"{service} runs again",
        )
        house.await_health([service], within_s=400)
    said, _ = load.communicate(timeout=300)
    answers = [json.loads(line) for line in said.splitlines()]
    statuses = Counter(answer["status"] for answer in answers)
    print(statuses)
    assert len(answers) == LOAD
    assert set(statuses) <= {200, 406, 503, 0}
    assert statuses[200] + statuses[406] >= LOAD / 2
    # Every image that was answered has its verdict in the end; what was not (0, 503), pict-rs has not kept.
    ledger = eventually(lambda: _closed_ledger(house), within_s=300, what="every answered image has its verdict")
    assert ledger["requests"] >= FIRST + statuses[200] + statuses[406]
    house.await_health()


def _closed_ledger(house: Deployment) -> dict[str, object] | None:
    ledger = json.loads(house.execute("enforcer", "fediwarden", "ledger", "--since", "30m", "--json", check=False))
    print(json.dumps(ledger)[:1500])
    return ledger if not ledger["unjudged"]["open"]["requests"] else None


def test_a_rotated_key_is_the_one_that_counts(house: Deployment) -> None:
    before = house.address
    house.init("--rotate")
    assert house.address != before
    house.compose("up", "-d")
    house.await_health(["gateway"])
    # The new container has the address of the old one, which its neighbours have to notice.
    eventually(lambda: house.post(before, 0, 1)[0]["status"] == 401, within_s=60, what="the old key is refused")
    assert house.post(house.address, 1, 2)[0]["status"] == 406  # known from before


def test_down_leaves_nothing_behind(house: Deployment) -> None:
    house.take_down(check=True)
    assert house.list_left() == []


def _listening_beyond_loopback() -> list[str]:
    """Sockets of this network namespace that listen on more than loopback and were not there for others."""
    found = []
    for table, loopback in (("/proc/net/tcp", "0100007F"), ("/proc/net/tcp6", "00000000000000000000000001000000")):
        for row in Path(table).read_text().splitlines()[1:]:
            columns = row.split()
            address, _, port = columns[1].rpartition(":")
            if columns[3] == "0A" and address != loopback and int(port, 16) in (9092, 9093, 14051, 14052, 14053, 14054):
                found.append(columns[1])
    return found
