import asyncio
import http.server
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from federation_audit.accounts.roles import Role
from federation_audit.accounts.users import Users
from federation_audit.store.migrating import open_store
from fediwarden import doctor
from fediwarden.audit_doctor import examine_audit
from fediwarden.findings import Finding, Health
from fediwarden.settings import Settings, load_settings
from schemas.keyring import Keyring
from tests.kafka import find_free_ports
from tests.pages import TEST, WORDS, cheap_passwords
from tests.pict_rs import API_KEY, running_pict_rs


def _settings(tmp_path: Path, **more: Any) -> Settings:
    return load_settings({"data_dir": tmp_path / "data", "cache_dir": tmp_path / "cache", **more})


class _Answer(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class _Broken(_Answer):
    status = 500


@pytest.fixture(params=[_Answer])
def server(request: pytest.FixtureRequest) -> Iterator[int]:
    """Some HTTP server that is no gateway of ours; its port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), request.param) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd.server_address[1]
        httpd.shutdown()


def test_a_disk_with_too_little_room_fails_with_the_setting_to_change(tmp_path: Path) -> None:
    findings = doctor._look_at_disk(_settings(tmp_path, kafka={"min_free_gb": 1e9}))
    assert [finding.health for finding in findings] == [Health.FAIL, Health.FAIL]
    assert "data_dir" in findings[0].remedy
    assert "1e+09 GB are needed" in findings[0].detail


def test_a_disk_with_room_is_well_even_before_the_directory_is_made(tmp_path: Path) -> None:
    findings = doctor._look_at_disk(_settings(tmp_path, kafka={"min_free_gb": 0}))
    assert [finding.health for finding in findings] == [Health.OK, Health.OK]


def test_a_cache_that_is_there_and_cannot_be_written_is_an_image_with_everything_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(tmp_path, kafka={"min_free_gb": 0})
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    assert [finding.health for finding in doctor._look_at_disk(settings)] == [Health.FAIL, Health.FAIL]
    settings.cache_dir.mkdir()
    assert [finding.health for finding in doctor._look_at_disk(settings)] == [Health.FAIL, Health.WARN]


def test_the_clock_is_looked_at_without_being_changed() -> None:
    (finding,) = doctor._look_at_clock()
    assert finding.health in (Health.OK, Health.WARN)
    assert bool(finding.remedy) == (finding.health is Health.WARN)


def test_a_key_file_that_others_can_read_fails_with_the_command_that_mends_it(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    (missing,) = doctor._look_at_key_file(settings)
    assert missing.health is Health.WARN
    settings.data_dir.mkdir()
    Keyring.load_or_create(settings.keys_file)
    (made,) = doctor._look_at_key_file(settings)
    assert made == Finding("key file", Health.OK, f"{settings.keys_file}: 1 key(s), mode 0600")
    settings.keys_file.chmod(0o644)
    (exposed,) = doctor._look_at_key_file(settings)
    assert exposed.health is Health.FAIL
    assert f"chmod 600 {settings.keys_file}" in exposed.detail


def test_missing_weights_are_a_warning_and_wrong_ones_a_failure(tmp_path: Path) -> None:
    settings = _settings(tmp_path, scanner={"models": ["safety-s"]})
    (missing,) = doctor._look_at_models(settings)
    assert (missing.health, missing.remedy) == (Health.WARN, "fediwarden models fetch safety-s")
    settings.models_dir.mkdir(parents=True)
    (settings.models_dir / "image-safety-classifier-s.onnx").write_bytes(b"not the weights")
    (wrong,) = doctor._look_at_models(settings)
    assert (wrong.health, wrong.remedy) == (Health.FAIL, "fediwarden models fetch safety-s")


def test_an_unknown_model_in_the_settings_fails(tmp_path: Path) -> None:
    (finding,) = doctor._look_at_models(_settings(tmp_path, scanner={"models": ["safety-z"]}))
    assert finding.health is Health.FAIL
    assert "safety-z" in finding.detail


def test_the_sandbox_is_looked_at_with_a_real_worker(tmp_path: Path) -> None:
    (finding,) = asyncio.run(doctor._look_at_sandbox(_settings(tmp_path)))
    assert finding.health in (Health.OK, Health.WARN)
    assert "limits" in finding.detail


def test_a_kafka_that_is_away_fails_with_the_way_to_start_it(tmp_path: Path) -> None:
    settings = _settings(tmp_path, kafka={"port": find_free_ports(2)})
    (finding,) = asyncio.run(doctor._look_at_kafka(settings))
    assert (finding.subject, finding.health) == ("kafka", Health.FAIL)
    assert finding.detail == f"not running; ports {settings.kafka.port} and {settings.kafka.port + 1} are free"
    assert "fediwarden up" in finding.remedy


@pytest.mark.parametrize("offset", [0, 1])
def test_a_stranger_on_a_port_of_kafka_is_named_with_the_flag_that_chooses_another(tmp_path: Path, offset: int) -> None:
    port = find_free_ports(2)
    with socketserver.TCPServer(("127.0.0.1", port + offset), socketserver.BaseRequestHandler) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        (finding,) = asyncio.run(doctor._look_at_kafka(_settings(tmp_path, kafka={"port": port})))
        stranger.shutdown()
    assert finding.health is Health.FAIL
    assert f"port {port + offset} is taken by " in finding.detail
    assert f"(pid {os.getpid()})" in finding.detail
    assert f"port {port + 1 - offset} " not in finding.detail
    assert "--kafka-port, FEDIWARDEN_KAFKA__PORT" in finding.remedy


def test_a_port_whose_holder_cannot_be_seen_is_not_called_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_listener", lambda _port: None)  # as it is with another user's process
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        assert f"port {port} is taken by another process" in doctor._look_at_kafka_ports(port).detail


def test_a_kafka_of_ones_own_that_is_away_is_not_looked_for_on_the_embedded_ports(tmp_path: Path) -> None:
    elsewhere = f"127.0.0.1:{find_free_ports(1)}"
    (finding,) = asyncio.run(doctor._look_at_kafka(_settings(tmp_path, kafka={"bootstrap_servers": elsewhere})))
    assert finding.health is Health.FAIL
    assert f"no Kafka at {elsewhere}" in finding.detail
    assert "14092" not in finding.detail


def test_a_free_gateway_port_is_well(tmp_path: Path) -> None:
    port = find_free_ports(1)
    (finding,) = asyncio.run(doctor._look_at_gateway(_settings(tmp_path, gateway={"port": port})))
    assert finding.health is Health.OK
    assert f"port {port} is free" in finding.detail


def test_a_stranger_on_the_gateway_port_fails_with_the_flag_that_chooses_another(tmp_path: Path, server: int) -> None:
    (finding,) = asyncio.run(doctor._look_at_gateway(_settings(tmp_path, gateway={"port": server})))
    assert finding.health is Health.FAIL
    assert "no gateway of ours" in finding.detail
    assert "--port" in finding.remedy


def test_a_gateway_that_listens_beyond_this_machine_without_a_key_is_a_warning(tmp_path: Path) -> None:
    port = find_free_ports(1)
    exposed, _ = asyncio.run(doctor._look_at_gateway(_settings(tmp_path, gateway={"port": port, "host": "0.0.0.0"})))
    assert exposed.health is Health.WARN
    assert exposed.remedy == "give every tenant a key"


@pytest.mark.parametrize("server", [_Answer], indirect=True)
def test_a_pict_rs_that_is_well_is_well(server: int) -> None:
    (finding,) = asyncio.run(doctor._look_at_pict_rs(f"http://127.0.0.1:{server}/"))
    assert finding == Finding("pict-rs", Health.OK, f"healthy at http://127.0.0.1:{server}/")


@pytest.mark.parametrize("server", [_Broken], indirect=True)
def test_a_pict_rs_that_is_ill_fails(server: int) -> None:
    (finding,) = asyncio.run(doctor._look_at_pict_rs(f"http://127.0.0.1:{server}"))
    assert finding.health is Health.FAIL
    assert "500" in finding.detail


def test_a_pict_rs_that_does_not_answer_fails() -> None:
    (finding,) = asyncio.run(doctor._look_at_pict_rs(f"http://127.0.0.1:{find_free_ports(1)}"))
    assert finding.health is Health.FAIL
    assert "is it running" in finding.remedy


@pytest.mark.parametrize(
    ("key", "health", "said"),
    [(API_KEY, Health.OK, "takes our API key"), ("another-key", Health.FAIL, "pict_rs_api_key")],
)
def test_the_internal_api_of_a_pict_rs_is_asked_where_a_tenant_has_its_key(
    tmp_path: Path, key: str, health: Health, said: str
) -> None:
    with running_pict_rs(tmp_path / "pict-rs") as pict_rs:
        tenants = {
            "a": {"key": "the-key-of-a", "pict_rs": pict_rs.url},
            "b": {"key": "the-key-of-b", "pict_rs": pict_rs.url, "pict_rs_api_key": key},
        }
        ((url, api_key),) = doctor._named_pict_rs(_settings(tmp_path, tenants=tenants), f"{pict_rs.url}/").items()
        (finding,) = asyncio.run(doctor._look_at_pict_rs(url, api_key))
    assert finding.health is health
    assert said in finding.detail
    assert key not in finding.detail + finding.remedy


def test_the_pict_rs_of_each_tenant_and_of_the_flag_is_looked_at_once(tmp_path: Path, server: int) -> None:
    well, away = f"http://127.0.0.1:{server}", f"http://127.0.0.1:{find_free_ports(1)}"
    tenants = {
        "a": {"key": "the-key-of-a", "pict_rs": well},
        "b": {"key": "the-key-of-b", "pict_rs": f"{well}/"},
        "c": {"key": "the-key-of-c", "pict_rs": away},
        "d": {"key": "the-key-of-d"},
    }
    settings = _settings(tmp_path, tenants=tenants, kafka={"port": find_free_ports(2)})
    by_settings = [each for each in asyncio.run(doctor.examine(settings)) if each.subject == "pict-rs"]
    assert [each.health for each in by_settings] == [Health.OK, Health.FAIL]
    assert well in by_settings[0].detail
    assert away in by_settings[1].detail
    flag = f"http://localhost:{server}"
    with_flag = [each for each in asyncio.run(doctor.examine(settings, pict_rs=flag)) if each.subject == "pict-rs"]
    assert with_flag == [Finding("pict-rs", Health.OK, f"healthy at {flag}"), *by_settings]


def _audit(settings: Settings) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for each in asyncio.run(examine_audit(settings)):
        found.setdefault(each.subject, []).append(each)
    return found


def _off(**audit: Any) -> dict[str, Any]:
    return {"kafka": {"port": find_free_ports(2)}, "audit": {"pages": {"port": find_free_ports(1)}} | audit}


def test_an_audit_that_was_never_started_is_a_warning_and_looking_makes_no_store(tmp_path: Path) -> None:
    settings = _settings(tmp_path, **_off())
    found = _audit(settings)
    assert [each.health for each in found["audit"] + found["accounts"]] == [Health.WARN, Health.WARN]
    assert "fediwarden audit record" in found["audit"][0].remedy
    assert found["accounts"][0].remedy == "fediwarden users add NAME --role admin"
    assert found["pages"] == [
        Finding(
            "pages",
            Health.OK,
            f"not running; port {settings.audit.pages.port} is free",
            "start them: fediwarden audit",
        )
    ]
    assert not (tmp_path / "data").exists()
    without = _audit(_settings(tmp_path, up={"audit": False}, **_off()))
    assert [each.health for each in without["audit"]] == [Health.OK]


def test_a_store_with_accounts_and_no_recorder_and_one_of_a_newer_release(tmp_path: Path) -> None:
    settings = _settings(tmp_path, **_off())
    with open_store(settings.audit_database) as store:
        Users(store, cheap_passwords()).add("ada", Role.ADMIN, WORDS, by=TEST, must_change=False)
        found = _audit(settings)
        assert found["audit"][0].health is Health.WARN and "nobody records" in found["audit"][0].detail
        assert found["accounts"][0].health is Health.OK
        with store.writing() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    (newer,) = _audit(settings)["audit"]
    assert newer.health is Health.FAIL and "newer fediwarden" in newer.detail


def test_a_database_that_refuses_us_fails_and_no_password_is_said(tmp_path: Path) -> None:
    url = f"postgresql://warden:hunter2@127.0.0.1:{find_free_ports(1)}/audit"
    (finding,) = _audit(_settings(tmp_path, **_off(database=url)))["audit"]
    assert finding.health is Health.FAIL
    assert "hunter2" not in finding.detail + finding.remedy


def test_a_stranger_on_the_port_of_the_pages_fails_with_the_variable_that_chooses_another(
    tmp_path: Path, server: int
) -> None:
    more = _off() | {"audit": {"pages": {"port": server}}}
    (finding,) = _audit(_settings(tmp_path, **more))["pages"]
    assert finding.health is Health.FAIL
    assert f"(pid {os.getpid()})" in finding.detail
    assert "FEDIWARDEN_AUDIT__PAGES__PORT" in finding.remedy


def test_lemmys_database_and_the_intake_are_looked_at_where_a_tenant_has_them(tmp_path: Path) -> None:
    tenant = {
        "lemmy_database": f"postgresql://hunter2:hunter2@127.0.0.1:{find_free_ports(1)}/lemmy",
        "origins_token": "hunter2-hunter2-hunter2",
    }
    found = _audit(_settings(tmp_path, tenants={"a": tenant}, **_off()))
    (lemmy,), (intake,) = found["lemmy"], found["intake"]
    assert lemmy.health is Health.FAIL and "tenants.a.lemmy_database" in lemmy.detail
    assert intake.health is Health.OK and "is for a" in intake.detail
    assert "hunter2:" not in repr(found) and "hunter2-" not in repr(found)
    assert "lemmy" not in _audit(_settings(tmp_path, **_off()))


@pytest.mark.parametrize(
    ("alerts", "public_url", "health"),
    [
        ({}, None, Health.OK),
        ({"urls": "json://127.0.0.1/ json://127.0.0.2/"}, "https://audit.example", Health.OK),
        ({"urls": "json://127.0.0.1/"}, None, Health.WARN),
        ({"urls": "hunter2"}, "https://audit.example", Health.FAIL),
    ],
)
def test_alerts_are_tried_as_far_as_their_addresses_go(
    tmp_path: Path, alerts: dict[str, Any], public_url: str | None, health: Health
) -> None:
    more = _off(alerts=alerts)
    more["audit"]["pages"]["public_url"] = public_url
    (finding,) = _audit(_settings(tmp_path, **more))["alerts"]
    assert finding.health is health, finding
    assert "hunter2" not in finding.detail
