"""The look at the machine before anything starts: ports and disk."""

import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from fediwarden.kafka.errors import DiskFull, PortTaken
from fediwarden.kafka.preflight import check_disk, check_port, disk_faults_named, find_listener


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_free_port_passes_and_stays_free(listener):
    port = listener.getsockname()[1]
    listener.close()
    for _ in range(2):
        check_port("127.0.0.1", port, purpose="a test", remedy="--port")


def test_a_taken_port_is_named_with_its_holder_and_the_way_out(listener):
    port = listener.getsockname()[1]
    with pytest.raises(PortTaken) as raised:
        check_port("127.0.0.1", port, purpose="the gateway", remedy="--port, FEDIWARDEN_GATEWAY__PORT")
    message = str(raised.value)
    for part in (str(port), "the gateway", f"pid {os.getpid()}", "--port, FEDIWARDEN_GATEWAY__PORT"):
        assert part in message


def test_a_port_that_is_let_go_of_in_time_passes(listener):
    port = listener.getsockname()[1]
    letting_go = threading.Timer(0.2, listener.close)
    letting_go.start()
    check_port("127.0.0.1", port, purpose="a test", remedy="--port", patience_s=20)
    letting_go.join()


def test_a_port_on_an_address_of_another_machine_is_refused_with_the_reason():
    with pytest.raises(PortTaken, match="Cannot assign"):
        check_port("192.0.2.1", 14051, purpose="a test", remedy="--port")


def test_who_listens_is_found_on_ipv4_and_ipv6(listener):
    assert f"pid {os.getpid()}" in (find_listener(listener.getsockname()[1]) or "")
    if socket.has_ipv6:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
            assert f"pid {os.getpid()}" in (find_listener(server.getsockname()[1]) or "")


def test_nobody_is_found_on_a_port_that_nobody_listens_on(listener):
    port = listener.getsockname()[1]
    listener.close()
    assert find_listener(port) is None


def test_too_little_disk_is_named_with_the_directory_and_the_way_out(tmp_path):
    wanted = tmp_path / "not" / "there" / "yet"
    check_disk(wanted, min_free_bytes=1, remedy="--data-dir")
    with pytest.raises(DiskFull, match="--data-dir") as raised:
        check_disk(wanted, min_free_bytes=1 << 60, remedy="choose another with --data-dir")
    assert str(wanted) in str(raised.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_meanwhile_is_named(number):
    with pytest.raises(DiskFull, match="/some/place"), disk_faults_named(Path("/some/place"), remedy="--data-dir"):
        raise OSError(number, os.strerror(number))


def test_other_faults_of_a_file_stay_what_they_are():
    with pytest.raises(PermissionError), disk_faults_named(Path("/some/place"), remedy="--data-dir"):
        raise PermissionError(errno.EACCES, "no")
