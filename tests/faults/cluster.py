"""Three Kafka nodes with a second door each, whose traffic passes through a proxy of ours."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from fediwarden.children import ChildSpec
from fediwarden.kafka.cluster import PORTS_PER_NODE, Cluster
from fediwarden.kafka.node import Node
from fediwarden.kafka.settings import LOOPBACK
from tests.kafka import find_free_ports, make_cluster

NODES = 3
_DOORS_PER_NODE = 2
_STANDS_BACK = 5


@dataclass(frozen=True)
class ProxiedNode(Node):
    """A node that also listens on `door`, and tells whoever comes that way to come to `proxy`."""

    door: int = 0
    proxy: int = 0

    def properties(self) -> dict[str, str]:
        values = Node.properties(self)
        values["listeners"] += f",PROXIED://{LOOPBACK}:{self.door}"
        values["advertised.listeners"] += f",PROXIED://{LOOPBACK}:{self.proxy}"
        values["listener.security.protocol.map"] += ",PROXIED:PLAINTEXT"
        return values

    def spec(self, java: Path, classpath: Sequence[Path]) -> ChildSpec:
        # Three nodes stand for three machines: starting at once they must not take the gateways' processor.
        return replace(Node.spec(self, java, classpath), niceness=_STANDS_BACK)


def make_proxied_cluster(directory: Path) -> tuple[Cluster, dict[int, ProxiedNode]]:
    """A cluster that is not started, and its nodes by number. Nobody listens on the proxies' ports yet."""
    base = find_free_ports((PORTS_PER_NODE + _DOORS_PER_NODE) * NODES)
    cluster = make_cluster(directory, nodes=NODES, port=base)
    doors = base + PORTS_PER_NODE * NODES
    proxied = {
        number: ProxiedNode(
            **{each.name: getattr(node, each.name) for each in fields(node)},
            door=doors + _DOORS_PER_NODE * (number - 1),
            proxy=doors + _DOORS_PER_NODE * (number - 1) + 1,
        )
        for number, node in cluster.nodes.items()
    }
    cluster.nodes = dict(proxied)
    return cluster, proxied


def find_controller(cluster: Cluster) -> int:
    """The number of the active controller: the leader that the nodes have written down for the latest epoch."""
    states = [
        json.loads((node.directory / "data" / "__cluster_metadata-0" / "quorum-state").read_text())
        for node in cluster.nodes.values()
    ]
    return int(max(states, key=lambda state: int(state["leaderEpoch"]))["leaderId"])
