"""The embedded Kafka: one node, or three for the tests, on this machine's loopback."""

import base64
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from fediwarden.children import Child, ChildSpec, describe_exit
from fediwarden.kafka.errors import NodeFailed
from fediwarden.kafka.java import find_java
from fediwarden.kafka.node import Node
from fediwarden.kafka.preflight import check_disk, check_port, disk_faults_named
from fediwarden.kafka.probe import list_serving_nodes
from fediwarden.kafka.settings import LOOPBACK

log = structlog.get_logger("fediwarden.kafka")

DISK_REMEDY = (
    "choose another directory (--data-dir, FEDIWARDEN_DATA_DIR) or ask for less (FEDIWARDEN_KAFKA__MIN_FREE_GB)"
)
PORT_REMEDY = "--kafka-port, FEDIWARDEN_KAFKA__PORT"
PORTS_PER_NODE = 2
_PROBE_EVERY_S = 0.05
_READY_WITHIN_S = 60.0
_PORT_PATIENCE_S = 2.0


def check_machine(directory: Path, *, port: int, nodes: int = 1, min_free_gb: float) -> None:
    """Whether a cluster could be started here. Raises `DiskFull` or `PortTaken`."""
    check_disk(directory, min_free_bytes=int(min_free_gb * 1e9), remedy=DISK_REMEDY)
    for at in range(port, port + PORTS_PER_NODE * nodes):
        purpose = "Kafka" if (at - port) % PORTS_PER_NODE == 0 else "Kafka's controller"
        check_port(LOOPBACK, at, purpose=purpose, remedy=PORT_REMEDY, patience_s=_PORT_PATIENCE_S)


class Cluster:
    """`nodes` Kafka nodes (1 or 3) whose files live under `directory`.

    Node *i* (from 0) serves clients at ``port + 2i`` and the other nodes at ``port + 2i + 1``. Either call `prepare`
    and hand `specs` to a `Supervisor`, or use `start`/`stop` (or ``with``), which block and restart nothing.
    `properties` take the place of what `Node.properties` says, for tests that cannot wait for it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int,
        classpath: Sequence[Path],
        nodes: int = 1,
        heap_mb: int = 512,
        min_free_gb: float = 2.0,
        java_options: Sequence[str] = (),
        properties: Mapping[str, str] | None = None,
        java: Path | None = None,
    ) -> None:
        if nodes not in (1, 3):
            raise ValueError(f"nodes is {nodes}: a cluster has 1 node, or 3")
        self.directory = directory
        self._java = java or find_java()
        self._classpath = tuple(classpath)
        self._port = port
        self._min_free_gb = min_free_gb
        self._children: dict[int, Child] = {}
        ports = {node: port + PORTS_PER_NODE * (node - 1) for node in range(1, nodes + 1)}
        controllers = {node: port + 1 for node, port in ports.items()}
        with disk_faults_named(directory, remedy=DISK_REMEDY):
            cluster_id = _keep_cluster_id(directory)
        self.nodes = {
            node: Node(
                node,
                directory / f"node-{node}",
                ports[node],
                controllers,
                cluster_id,
                heap_mb,
                tuple(java_options),
                dict(properties or {}),
            )
            for node in ports
        }

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect."""
        return ",".join(f"{LOOPBACK}:{node.port}" for node in self.nodes.values())

    def prepare(self) -> None:
        """Check disk and ports, write the nodes' files, format what is new. Blocks, a second or two at first.

        Raises `DiskFull`, `PortTaken` or `NodeFailed`.
        """
        check_machine(self.directory, port=self._port, nodes=len(self.nodes), min_free_gb=self._min_free_gb)
        with disk_faults_named(self.directory, remedy=DISK_REMEDY):
            for node in self.nodes.values():
                node.write_files()
                if not node.formatted:
                    node.format(self._java, self._classpath)
                    log.info("kafka_formatted", node=node.node_id, directory=str(node.directory))

    def specs(self) -> tuple[ChildSpec, ...]:
        """The nodes, for a `Supervisor`. Call `prepare` before they are started."""
        return tuple(node.spec(self._java, self._classpath) for node in self.nodes.values())

    def is_ready(self) -> bool:
        """Whether every node answers, and knows all of them to be serving."""
        return all(list_serving_nodes(LOOPBACK, node.port) >= self.nodes.keys() for node in self.nodes.values())

    def start(self) -> None:
        """Prepare and start all nodes, and wait until they serve. Raises what `prepare` and `wait_ready` do."""
        self.prepare()
        try:
            for node_id in self.nodes:
                self.start_node(node_id)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def start_node(self, node_id: int) -> None:
        """Start one node (again). Does not wait."""
        running = self._children.get(node_id)
        if running is None or not running.running:
            self._children[node_id] = Child(self.nodes[node_id].spec(self._java, self._classpath))

    def wait_ready(self, timeout_s: float = _READY_WITHIN_S) -> None:
        """Block until the nodes serve. Raises `NodeFailed` when one ends, or takes longer than `timeout_s`."""
        give_up_at = time.monotonic() + timeout_s
        while not self.is_ready():
            for node_id, child in self._children.items():
                if child.exit_code is not None:
                    raise self.failure(node_id, describe_exit(child.exit_code))
            if time.monotonic() >= give_up_at:
                raise self.failure(min(self.nodes), f"no answer within {timeout_s:.0f} s")
            time.sleep(_PROBE_EVERY_S)  # a process elsewhere gives no event when it is ready

    def failure(self, node_id: int, what: str) -> NodeFailed:
        """The error for a node that does not run, with the end of its log."""
        node = self.nodes[node_id]
        return NodeFailed(
            f"{node.name} did not start ({what}). Its log is {node.log_file}; it ends:\n{node.last_words()}"
        )

    def kill_node(self, node_id: int) -> None:
        """kill -9, for tests."""
        self._children[node_id].kill()
        self._children[node_id].wait()

    def pid(self, node_id: int = 1) -> int:
        """The process id of a node that was started here."""
        return self._children[node_id].pid

    def stop(self) -> None:
        """Stop all nodes, politely at first. Blocks."""
        for child in self._children.values():
            child.terminate()
        for child in self._children.values():
            child.stop()
        self._children.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def _keep_cluster_id(directory: Path) -> str:
    """The cluster's id: made once, then read. In Kafka's form, 16 random bytes in URL-safe base64."""
    path = directory / "cluster-id"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    directory.mkdir(parents=True, exist_ok=True)
    made = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    while made.startswith("-"):  # would be taken for an option
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(made + "\n")
    temporary.replace(path)
    return made
