"""The readiness question, put to a server that answers with fixed bytes. (A real node: tests/integration.)"""

import socket
import struct
import threading

import pytest

from fediwarden.kafka.probe import list_serving_nodes

# Metadata response v1, correlation id 1: two brokers, one without and one with a rack, then controller and topics.
ANSWER = (
    struct.pack(">ii", 1, 2)
    + struct.pack(">ih9sih", 1, 9, b"127.0.0.1", 15000, -1)
    + struct.pack(">ih9sih4s", 7, 9, b"127.0.0.1", 15002, 4, b"rack")
    + struct.pack(">ii", 1, 0)
)
FRAMED = struct.pack(">i", len(ANSWER)) + ANSWER


@pytest.fixture
def serve():
    """Starts a server that reads one request and sends the given bytes; gives its port and what it was asked."""
    asked = bytearray()
    servers = []

    def start(answer: bytes) -> tuple[int, bytearray]:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def answer_one() -> None:
            connection, _ = server.accept()
            with connection:
                asked.extend(connection.recv(4096))
                connection.sendall(answer)

        threading.Thread(target=answer_one, daemon=True).start()
        return server.getsockname()[1], asked

    yield start
    for server in servers:
        server.close()


def test_the_serving_nodes_are_read_from_a_metadata_answer(serve):
    port, asked = serve(FRAMED)
    assert list_serving_nodes("127.0.0.1", port) == {1, 7}
    (length,) = struct.unpack_from(">i", asked)
    assert length == len(asked) - 4
    assert struct.unpack_from(">hh", asked, 4) == (3, 1)


@pytest.mark.parametrize(
    "answer", [b"", FRAMED[:3], FRAMED[:20], b"HTTP/1.1 400 Bad Request\r\n\r\n", struct.pack(">i", 4)]
)
def test_what_is_no_answer_counts_as_not_serving(serve, answer):
    port, _ = serve(answer)
    assert list_serving_nodes("127.0.0.1", port) == frozenset()


def test_a_port_nobody_listens_on_counts_as_not_serving(serve):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert list_serving_nodes("127.0.0.1", port) == frozenset()
