"""Ports: held early, opened late."""

import socket

import pytest

from gateway.listening import CannotStart, bind, listen

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
