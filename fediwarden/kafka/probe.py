"""Asks a Kafka node whether it serves, in Kafka's own protocol.

An open port says little: a node accepts connections before it has joined the cluster. One Metadata request does,
because a node is listed only once the controller lets it serve (https://kafka.apache.org/protocol, Metadata v1).
"""

import socket
import struct

_METADATA = 3
_VERSION = 1
_CLIENT_ID = b"fediwarden-probe"


def list_serving_nodes(host: str, port: int, *, timeout_s: float = 2.0) -> frozenset[int]:
    """The ids of the nodes that the one at `host`:`port` knows to be serving; empty when it does not answer."""
    header = struct.pack(">hhih", _METADATA, _VERSION, 1, len(_CLIENT_ID)) + _CLIENT_ID
    body = struct.pack(">i", 0)  # an empty list of topics: only the brokers are wanted
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
            (length,) = struct.unpack(">i", _receive(connection, 4))
            return _parse_brokers(_receive(connection, length))
    except (OSError, struct.error):
        return frozenset()


def _receive(connection: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        chunk = connection.recv(count - len(received))
        if not chunk:
            raise ConnectionResetError("the node closed the connection")
        received += chunk
    return bytes(received)


def _parse_brokers(response: bytes) -> frozenset[int]:
    _correlation, count = struct.unpack_from(">ii", response)
    at = 8
    nodes = set()
    for _ in range(count):
        node, host_length = struct.unpack_from(">ih", response, at)
        at += 6 + host_length + 4  # the host's name, then the port
        (rack_length,) = struct.unpack_from(">h", response, at)
        at += 2 + max(rack_length, 0)
        nodes.add(node)
    return frozenset(nodes)
