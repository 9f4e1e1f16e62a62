"""The whole of fediwarden under load, for the fault tests: every part a process of its own that can be broken alone.

Three Kafka nodes; two gateways, which reach Kafka through proxies of ours; two scanners whose model judges by colour;
an enforcer; a stand-in for pict-rs, which reaches the gateways through a proxy. What dies is started again a second
later, as a supervisor would do: by whoever waits with `Rig.wait` or `Rig.wait_until`.
"""

import asyncio
import hashlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.processes import usage
from fediwarden.kafka.cluster import Cluster
from schemas.broker import BrokerSettings, apply_topics
from schemas.keyring import Keyring
from tests.faults.background import Background
from tests.faults.cluster import find_controller, make_proxied_cluster
from tests.faults.driver import RATE, Driver
from tests.faults.proxies import Link, Proxy
from tests.faults.scanner import Behaviour
from tests.kafka import find_free_ports
from tests.pict_rs import API_KEY, DATA, Mode
from tests.processes import Process, fetch_status

GATEWAYS = ("gateway-a", "gateway-b")
SCANNERS = ("scanner-1", "scanner-2")
DEADLINE_S = 3.0
RESTART_AFTER_S = 1.0
MOST_LOAD = 0.6
"""The load takes no more of the machine's cores, whose rest is for restarts: a machine too slow breaks no promise."""
READY_WITHIN_S = 90.0
_WARM_UP_S = 2.0
_MEASURE_S = 4.0
_LOOK_EVERY_S = 0.1
_MANY_STARTS = 5


@dataclass(slots=True)
class Member:
    """One process of ours, and how it is started again. `ready` says whether a fresh one does its work."""

    name: str
    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    ready: Callable[["Member"], bool]
    process: Process
    starts: int = 1
    down: bool = False
    """Ended on purpose; to be left alone."""
    missed_at: float | None = None


@dataclass(slots=True)
class Rig:
    """See the module. Make one with `running_rig`."""

    folder: Path
    background: Background
    cluster: Cluster
    kafka: BrokerSettings
    links: list[Proxy]
    front: Proxy
    pict_rs: str
    environment: dict[str, str]
    members: dict[str, Member] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    rate: float = RATE

    def driver(self, **options: Any) -> Driver:
        """A driver for this rig, at its rate; `options` are the driver's shares."""
        front = f"http://127.0.0.1:{self.front.port}"
        return Driver(self.background, front, self.pict_rs, self.numbers, rate=self.rate, **options)

    def find_rate(self) -> None:
        """Send as many images a second as this machine has room for, `RATE` at most."""
        driver = self.driver()
        driver.start()
        self.wait(_WARM_UP_S)
        before, since = self._cpu_seconds(), time.monotonic()
        self.wait(_MEASURE_S)
        cores = (self._cpu_seconds() - before) / (time.monotonic() - since)
        driver.stop()
        self.rate = min(RATE, RATE * MOST_LOAD * len(os.sched_getaffinity(0)) / cores)

    def _cpu_seconds(self) -> float:
        """Of everything here so far: members, Kafka, and the driver."""
        kafka = [self.cluster.pid(number) for number in self.cluster.nodes]
        members = [member.process.pid for member in self.members.values()]
        return usage([*kafka, *members]).total + time.process_time()

    # ---- waiting

    def tend(self) -> None:
        """Start what died a while ago."""
        now = time.monotonic()
        for member in self.members.values():
            if member.down or member.process.running:
                member.missed_at = None
            elif member.missed_at is None:
                member.missed_at = now
            elif now - member.missed_at >= RESTART_AFTER_S:
                self.start(member.name)

    def wait(self, seconds: float) -> None:
        """Let the fault last."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.tend()
            time.sleep(min(_LOOK_EVERY_S, left))

    def wait_until(self, true: Callable[[], bool], what: str, within_s: float = READY_WITHIN_S) -> None:
        """Block until `true()`; fails when that takes too long."""
        until = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < until, f"not {what} after {within_s} s: {self._complain()}"
            self.tend()
            time.sleep(_LOOK_EVERY_S)

    def _complain(self) -> str:
        """Where the logs are, and how those of processes that keep dying end."""
        dying = [member.process for member in self.members.values() if member.starts > _MANY_STARTS]
        return "\n".join([f"the logs are in {self.folder}", *(process.log[-1000:] for process in dying)])

    def wait_ready(self, *names: str) -> None:
        """Block until these members (all of them, when none is named) do their work."""
        for name in names or tuple(self.members):
            self.wait_until(lambda name=name: self._is_ready(name), f"ready: {name}")

    def _is_ready(self, name: str) -> bool:
        member = self.members[name]
        return member.process.running and member.ready(member)

    def mend(self) -> None:
        """Undo whatever a fault that went wrong left behind, and wait until everything works."""
        self.link(Link.UP)
        self.behave(Behaviour.OK, *SCANNERS)
        self.thaw(*self.members)
        self.start_nodes(*self.cluster.nodes)
        for name, member in self.members.items():
            if member.down:
                self.start(name)
        self.wait_ready()
        self.pict_rs_answers("well")

    # ---- our processes

    def add(
        self,
        name: str,
        module: str,
        *arguments: str,
        ready: Callable[[Member], bool],
        **environment: str,
    ) -> None:
        """Take up one more member and start it."""
        process = self._launch(name, module, arguments, environment, number=1)
        self.members[name] = Member(name, module, arguments, environment, ready, process)

    def start(self, name: str) -> None:
        """Start a member that is down."""
        member = self.members[name]
        member.starts += 1
        member.process = self._launch(name, member.module, member.arguments, member.environment, number=member.starts)
        member.down, member.missed_at = False, None

    def restart(self, name: str, module: str = "", arguments: tuple[str, ...] = (), **environment: str) -> None:
        """Stop a member and start it changed, ready; what is given takes the place of what it was added with."""
        assert self.stop(name) == 0, f"{name} did not stop well: {self.members[name].process.log_file}"
        member = self.members[name]
        if module:
            member.module, member.arguments = module, arguments
        member.environment |= environment
        self.start(name)
        self.wait_ready(name)

    def _launch(
        self, name: str, module: str, arguments: tuple[str, ...], environment: dict[str, str], *, number: int
    ) -> Process:
        log_file = self.folder / f"{name}-{number}.log"
        return Process(list(arguments), environment=self.environment | environment, log_file=log_file, module=module)

    def kill(self, name: str) -> None:
        """kill -9; it comes back by itself."""
        self.members[name].process.kill()

    def stop(self, name: str) -> int:
        """SIGTERM and wait; it stays down. The exit status."""
        member = self.members[name]
        member.down = True
        return member.process.stop()

    def freeze(self, *names: str) -> None:
        """SIGSTOP."""
        for name in names:
            self.members[name].process.signal(signal.SIGSTOP)

    def thaw(self, *names: str) -> None:
        """SIGCONT."""
        for name in names:
            self.members[name].process.signal(signal.SIGCONT)

    def behave(self, behaviour: Behaviour, *names: str) -> None:
        """What the models of these scanners do from now on."""
        for name in names:
            self.control(name).write_text(behaviour)

    def control(self, name: str) -> Path:
        """The file that says what a scanner's model does."""
        return self.folder / f"{name}.control"

    def memory(self) -> dict[str, int]:
        """Resident bytes of each gateway, scanner and the enforcer, with all below them."""
        ours = (*GATEWAYS, *SCANNERS, "enforcer")
        return {name: usage([self.members[name].process.pid]).rss for name in ours}

    # ---- Kafka, and the way to it

    def kill_nodes(self, *numbers: int) -> None:
        """kill -9 of Kafka nodes. They stay down until `start_nodes`."""
        for number in numbers:
            self.cluster.kill_node(number)

    def start_nodes(self, *numbers: int) -> None:
        """Start Kafka nodes again; does not wait."""
        for number in numbers:
            self.cluster.start_node(number)

    def controller(self) -> int:
        """The number of the active controller."""
        return find_controller(self.cluster)

    def link(self, state: Link) -> None:
        """What becomes of the network between the gateways and Kafka."""
        for proxy in self.links:
            self.background.call(proxy.switch(state))

    # ---- pict-rs

    def pict_rs_answers(self, mode: Mode) -> None:
        """How pict-rs answers everyone from now on."""
        httpx.post(f"{self.pict_rs}/behaviour", params={"mode": mode, "everywhere": "1"}).raise_for_status()

    def stored(self) -> set[bytes]:
        """The sha256 of every file in pict-rs's store, by what is in it."""
        found = set()
        for file in self.store.glob(f"*/{DATA}"):
            with suppress(FileNotFoundError):  # purged just now
                if not file.parent.name.startswith("new-"):  # being written, or left behind so by a kill: not served
                    found.add(hashlib.sha256(file.read_bytes()).digest())
        return found

    @property
    def store(self) -> Path:
        """Where pict-rs keeps its files."""
        return self.folder / "pict-rs"


@contextmanager
def running_rig(folder: Path) -> Iterator[Rig]:
    """A rig in which everything works. Everything is gone after it; data and logs stay in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as cleanup:
        background = cleanup.enter_context(Background())
        cluster, nodes = make_proxied_cluster(folder / "kafka")
        cleanup.callback(_end_kafka, cluster)
        cluster.start()
        kafka = BrokerSettings(bootstrap_servers=cluster.bootstrap_servers)
        asyncio.run(apply_topics(kafka))
        links = [Proxy(node.proxy, [node.door]) for node in nodes.values()]
        front_port, *gateway_ports, pict_rs_port = range(first := find_free_ports(4), first + 4)
        front = Proxy(front_port, gateway_ports)
        for proxy in (*links, front):
            background.call(proxy.start())
        Keyring.load_or_create(folder / "data" / "keys.json")
        pict_rs = f"http://127.0.0.1:{pict_rs_port}"
        rig = Rig(folder, background, cluster, kafka, links, front, pict_rs, _environment(folder, kafka, pict_rs))
        cleanup.callback(_end, rig)
        _populate(rig, gateway_ports)
        rig.wait_ready()
        rig.find_rate()
        yield rig


def _environment(folder: Path, kafka: BrokerSettings, pict_rs: str) -> dict[str, str]:
    return {
        "FEDIWARDEN_DATA_DIR": str(folder / "data"),
        "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "FEDIWARDEN_GATEWAY__DEADLINE_MS": str(int(DEADLINE_S * 1000)),
        "FEDIWARDEN_GATEWAY__FRAMES__WORKERS": "1",
        "FEDIWARDEN_SCANNER__ANNOUNCE_S": "1",
        "FEDIWARDEN_SCANNER__HANG_S": "4",
        "FEDIWARDEN_ENFORCER__CHECKS_S": "[1, 3]",
        "FEDIWARDEN_ENFORCER__RETRY_MOST_S": "2",
        "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS": pict_rs,
        "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS_API_KEY": API_KEY,
    }


def _populate(rig: Rig, gateway_ports: Sequence[int]) -> None:
    through_links = ",".join(f"127.0.0.1:{link.port}" for link in rig.links)
    for name in SCANNERS:
        rig.behave(Behaviour.OK, name)
        control = str(rig.control(name))
        ready = _says("scanner_ready")
        rig.add(name, "tests.faults.scanner", "--control", control, ready=ready, FEDIWARDEN_SCANNER__INSTANCE=name)
    rig.add("enforcer", "fediwarden", "enforcer", ready=_says("enforcer_ready"))
    for name, port in zip(GATEWAYS, gateway_ports, strict=True):
        rig.add(
            name,
            "fediwarden",
            "gateway",
            ready=_gateway_is_ready,
            FEDIWARDEN_GATEWAY__PORT=str(port),
            FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS=through_links,
        )
    _, _, address = rig.pict_rs.rpartition(":")
    validation = f"http://127.0.0.1:{rig.front.port}/api/v1/scan/IPADDR"
    given = ("--port", address, "--folder", str(rig.store), "--validation", validation)
    rig.add("pict-rs", "tests.pict_rs", *given, ready=lambda _: fetch_status(f"{rig.pict_rs}/healthz") == 200)


def _says(event: str) -> Callable[[Member], bool]:
    return lambda member: event in member.process.log


def _gateway_is_ready(member: Member) -> bool:
    """Ready, and it has heard of the scanners."""
    url = f"http://127.0.0.1:{member.environment['FEDIWARDEN_GATEWAY__PORT']}/readyz"
    return fetch_status(url) == 200 and bool(httpx.get(url).json()["parts"]["scanners"]["ok"])


def _end_kafka(cluster: Cluster) -> None:
    for number in cluster.nodes:  # politely takes 20 s: the last of three has no quorum left to say goodbye to
        cluster.kill_node(number)


def _end(rig: Rig) -> None:
    for member in reversed(rig.members.values()):
        member.process.kill()
