"""Ports: held early, opened late."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.listening import CannotStart, bind, listen
from tests.gateways import running_gateway, wait_for

NAMES = {"setting": "gateway.port", "host_setting": "gateway.host"}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_nobody_is_taken_in_before_there_is_somebody_to_read(host: str) -> None:
    with bind(host, 0, **NAMES) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port))
        listen(bound, **NAMES)
        socket.create_connection((host, port)).close()


def test_a_port_that_another_listens_on_is_named_before_anything_else_is_done() -> None:
    with bind("127.0.0.1", 0, **NAMES) as first:
        listen(first, **NAMES)
        with pytest.raises(CannotStart, match=r"gateway\.port.*gateway\.host"):
            bind("127.0.0.1", first.getsockname()[1], **NAMES)


def test_of_two_that_start_at_once_one_gets_the_port_and_the_other_is_told() -> None:
    with bind("127.0.0.1", 0, **NAMES) as first, bind("127.0.0.1", first.getsockname()[1], **NAMES) as second:
        listen(first, **NAMES)
        with pytest.raises(CannotStart, match=r"gateway\.port"):
            listen(second, **NAMES)


REQUEST = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n"


@pytest.mark.parametrize("before", [b"", REQUEST], ids=["just connected", "kept alive"])
def test_a_request_that_is_on_its_way_when_the_gateway_stops_is_answered(before: bytes) -> None:
    with running_gateway() as running, socket.create_connection(("127.0.0.1", running.gateway.port), 30) as client:
        port = running.gateway.port
        if before:
            client.sendall(before)
            first = b""
            while not first.endswith(b"}"):  # head and body may come one after the other
                first += client.recv(65536)
            assert b"200 OK" in first
        running.loop.call_soon_threadsafe(running.gateway.stop)
        wait_for(lambda: _is_closed(port))
        client.sendall(REQUEST)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer.lower()


def test_a_gateway_that_stops_does_not_wait_for_those_who_ask_nothing() -> None:
    with running_gateway(keep_alive_s=600) as running, socket.create_connection(("127.0.0.1", running.gateway.port)):
        running.loop.call_soon_threadsafe(running.gateway.stop)
        running.thread.join(60)
        assert not running.thread.is_alive()


def _is_closed(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.1).close()  # the kernel answers, or drops it when it stops
    except OSError:
        return True
    return False


def test_whoever_gets_a_connection_while_a_busy_gateway_stops_gets_an_answer() -> None:
    lost: list[str] = []
    answers: list[bytes] = []

    def ask_until_refused(port: int) -> None:
        while True:
            try:
                client = socket.create_connection(("127.0.0.1", port), 30)
            except OSError:
                return
            with client:
                try:
                    client.sendall(REQUEST)
                    answers.append(client.recv(65536)[:15])
                except OSError as error:
                    lost.append(repr(error))

    with running_gateway() as running:
        port = running.gateway.port

        def work() -> None:
            time.sleep(0.02)  # the loop has its hands full: the window between a look at the port and its closing
            if running.thread.is_alive():
                running.loop.call_soon(work)

        with ThreadPoolExecutor(8) as clients:
            asking = [clients.submit(ask_until_refused, port) for _ in range(8)]
            wait_for(lambda: len(answers) > 16)
            running.loop.call_soon_threadsafe(work)
            running.loop.call_soon_threadsafe(running.gateway.stop)
            for each in asking:
                each.result()
    assert not lost
    assert set(answers) == {b"HTTP/1.1 200 OK"}
