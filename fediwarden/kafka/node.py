"""One Kafka node: its files, how it is formatted, and the command that runs it.

A node is broker and controller in one (KRaft "combined mode"). The settings are for a small machine that does other
work as well; they are explained where they differ from Apache Kafka's defaults
(https://kafka.apache.org/documentation/#brokerconfigs).
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fediwarden.children import ChildSpec
from fediwarden.kafka.errors import NodeFailed
from fediwarden.kafka.settings import LOOPBACK
from schemas.topics import MAX_MESSAGE_BYTES

LOG_FILE_BYTES = 8 << 20
LOG_FILES_KEPT = 3
STOP_WITHIN_S = 20.0
_FORMAT_WITHIN_S = 60.0
_RECORD_OVERHEAD_BYTES = 64 << 10
_SHOWN_LINES = 12
_READ_BYTES = 200_000
_LITTLE_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Node:
    """Node `node_id` of a cluster whose controllers listen on `controllers` (id -> port), all on loopback.

    `directory` holds everything of this node: ``data/`` (Kafka's own), ``logs/``, and the files we write.
    `extra_properties` take the place of ours in server.properties.
    """

    node_id: int
    directory: Path
    port: int
    controllers: Mapping[int, int]
    cluster_id: str
    heap_mb: int
    java_options: tuple[str, ...] = ()
    extra_properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the log calls it."""
        return "kafka" if len(self.controllers) == 1 else f"kafka-{self.node_id}"

    @property
    def properties_file(self) -> Path:
        """Kafka's server.properties."""
        return self.directory / "server.properties"

    @property
    def log_file(self) -> Path:
        """The log that Kafka writes."""
        return self.directory / "logs" / "server.log"

    @property
    def console_file(self) -> Path:
        """What Java prints: little, unless it fails."""
        return self.directory / "logs" / "console.log"

    def properties(self) -> dict[str, str]:
        """The content of server.properties."""
        nodes = len(self.controllers)
        voters = ",".join(f"{node}@{LOOPBACK}:{port}" for node, port in self.controllers.items())
        largest = MAX_MESSAGE_BYTES + _RECORD_OVERHEAD_BYTES
        values: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": self.node_id,
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://{LOOPBACK}:{self.port},CONTROLLER://{LOOPBACK}:{self.controllers[self.node_id]}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self.directory / "data",
            # Topics are made by `fediwarden topics apply`, never by a typing error.
            "auto.create.topics.enable": "false",
            "num.partitions": 1,
            "default.replication.factor": min(3, nodes),
            "min.insync.replicas": 2 if nodes >= 3 else 1,
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": min(3, nodes),
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": min(3, nodes),
            "transaction.state.log.min.isr": 2 if nodes >= 3 else 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": min(3, nodes),
            "share.coordinator.state.topic.min.isr": 2 if nodes >= 3 else 1,
            # One record of the largest topic passes everywhere; what waits to be handled cannot fill the heap.
            "message.max.bytes": largest,
            "replica.fetch.max.bytes": largest,
            "socket.request.max.bytes": 16 << 20,
            "queued.max.request.bytes": 64 << 20,
            # A handful of clients on a machine of few cores.
            "num.network.threads": 2,
            "num.io.threads": 4,
            "background.threads": 2,
            "num.recovery.threads.per.data.dir": 2,
            "group.coordinator.threads": 1,
            "log.cleaner.dedupe.buffer.size": 16 << 20,
            # Index files are allotted in full when a segment is opened: 10 MB each, two a partition, by default.
            "log.index.size.max.bytes": 1 << 20,
            # Deleted means off the disk soon: rejected pixels must not linger.
            "log.retention.check.interval.ms": 60_000,
            "log.segment.delete.delay.ms": 1_000,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1_000,
            "broker.session.timeout.ms": 6_000,
            "broker.heartbeat.interval.ms": 1_000,
            # Records that say nothing, written twice a second by default, keep a disk and a core awake.
            "metadata.max.idle.interval.ms": 5_000 if nodes == 1 else 500,
            "metadata.max.retention.bytes": 16 << 20,
            "metadata.log.segment.bytes": 8 << 20,
            "metadata.log.max.record.bytes.between.snapshots": 4 << 20,
        }
        return {key: str(value) for key, value in values.items()} | dict(self.extra_properties)

    def write_files(self) -> None:
        """Write server.properties and the logging configuration anew; they belong to the program, not to the user."""
        for folder in (self.directory / "data", self.log_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        lines = ["# Written by fediwarden at each start. Changes are lost."]
        lines += [f"{key}={_escape(value)}" for key, value in self.properties().items()]
        self.properties_file.write_text("\n".join(lines) + "\n")
        (self.directory / "log4j2.properties").write_text(self._logging())

    def _logging(self) -> str:
        return f"""# Written by fediwarden at each start. Changes are lost.
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {_escape(str(self.log_file))}
appender.file.filePattern = {_escape(str(self.log_file))}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %m (%c)%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = {LOG_FILE_BYTES}
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = {LOG_FILES_KEPT}
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
"""

    @property
    def formatted(self) -> bool:
        """Whether the data directory belongs to a cluster already. Kafka writes this file last when it formats."""
        return (self.directory / "data" / "meta.properties").exists()

    def format(self, java: Path, classpath: Sequence[Path]) -> None:
        """Prepare the data directory, as `kafka-storage.sh format` does. Blocks for about a second."""
        argv = [*self._java(java, classpath), "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        argv += ["-t", self.cluster_id, "-c", str(self.properties_file)]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=_FORMAT_WITHIN_S, check=False)
        except subprocess.TimeoutExpired as fault:
            raise NodeFailed(f"{self.name}: formatting {self.directory} took over {_FORMAT_WITHIN_S:.0f} s") from fault
        if done.returncode:
            raise NodeFailed(
                f"{self.name}: formatting {self.directory} failed: {(done.stderr or done.stdout).strip()[-1000:]}"
            )

    def spec(self, java: Path, classpath: Sequence[Path]) -> ChildSpec:
        """How to run this node."""
        return ChildSpec(
            name=self.name,
            argv=(*self._java(java, classpath), "kafka.Kafka", str(self.properties_file)),
            output=self.console_file,
            stop_within_s=STOP_WITHIN_S,
            explain=self.last_words,
        )

    def _java(self, java: Path, classpath: Sequence[Path]) -> list[str]:
        return [
            str(java),
            f"-Xmx{self.heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            f"-XX:ErrorFile={self.directory / 'logs' / 'hs_err_%p.log'}",
            "-Djava.awt.headless=true",
            "-Djdk.nio.maxCachedBufferSize=262144",
            "-Dlog4j2.disableJmx=true",
            f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}",
            *self.java_options,
            "-cp",
            os.pathsep.join(map(str, classpath)),
        ]

    def last_words(self) -> str:
        """The end of what it printed and logged: why it ended, as a rule."""
        lines = []
        with suppress(OSError):
            free = shutil.disk_usage(self.directory).free
            if free < _LITTLE_BYTES:
                lines.append(f"the disk of {self.directory} has only {free / 1e6:.0f} MB free")
        logged = list(_pick_faults(_read_end(self.log_file)))
        # Java's own warnings are about Kafka's use of it, and say nothing about an end.
        printed = [line for line in _read_end(self.console_file) if not line.startswith("WARNING:")]
        lines += logged[-_SHOWN_LINES // 2 :] + printed[-_SHOWN_LINES // 2 :]
        return "\n".join(line[:400] for line in lines)


def _pick_faults(lines: Iterable[str]) -> Iterator[str]:
    """Errors, and the exceptions that follow them without the places in the code that they passed through."""
    within = False
    for line in lines:
        if line[:4].isdigit():  # a time: an entry of its own
            within = " ERROR " in line or " FATAL " in line
        if within and not line.startswith("\t"):
            yield line


def _read_end(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _READ_BYTES))
            return stream.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\")
