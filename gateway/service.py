"""One gateway process: its parts, the order they start and stop in, and what it does while Kafka is away."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import Mapping, Sequence

import structlog
import uvicorn

from gateway.app import Endpoints, create_app
from gateway.bodies import Bodies
from gateway.delivery import Delivery
from gateway.edge import edge_protocol
from gateway.flights import Flights
from gateway.frames.pool import FramePool
from gateway.hashing import Hashing
from gateway.ledger import Ledger
from gateway.listening import BACKLOG, CannotStart, Server, allow_open_files, bind, listen
from gateway.lists.learning import Learning
from gateway.lists.lists import Lists
from gateway.lists.publishing import Publishing
from gateway.lists.store import ListStore
from gateway.metrics import Metrics
from gateway.overrides.editor import OverrideEditor
from gateway.overrides.endpoints import OverrideEndpoints
from gateway.overrides.history import Scanned
from gateway.overrides.memory import Overrides
from gateway.readiness import Part
from gateway.recognition import Recognition
from gateway.scans import Scans
from gateway.settings import GatewaySettings, TenantSettings
from gateway.spool.errors import SpoolUnusable
from gateway.steering import Steering
from gateway.storage import Storage, open_storage
from gateway.tenants import Tenants
from gateway.verdicts import Verdicts
from schemas.broker import (
    BrokerRefused,
    BrokerSettings,
    BrokerUnavailable,
    Producer,
    Received,
    Tail,
    TopicsNotReady,
    check_topics,
)
from schemas.clock import now_ms
from schemas.keyring import Keyring
from schemas.messages import ImageFailed, OverrideSet, ScannerAnnounced, Stage, Verdict
from schemas.telemetry import tracing
from schemas.tls import TlsUnusable
from schemas.topics import ANSWERS, HOUR_MS, IMAGES, IMAGES_BACKLOG, IMAGES_DEAD, OVERRIDES, SCANNERS, VERDICTS

log = structlog.get_logger("gateway")

_TOPICS = (IMAGES, IMAGES_BACKLOG, ANSWERS, VERDICTS, SCANNERS, IMAGES_DEAD, OVERRIDES)
_RETRY_FIRST_S = 0.25
_RETRY_MOST_S = 2.0
_LAST_CHANCE_S = 1.0
_LAST_REQUESTS_S = 1.0
_ADOPT_EVERY_S = 30.0


class Gateway:
    """One gateway. `serve` returns when `stop` was called and everything in hand is answered and handed on.

    Raises `CannotStart` from the constructor or `start`: invalid tenants, an unusable folder, a taken port.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        tenants: Mapping[str, TenantSettings],
        broker: BrokerSettings,
        keyring: Keyring,
    ) -> None:
        try:
            self._tenants = Tenants(tenants)
        except ValueError as error:
            raise CannotStart(str(error)) from error
        try:
            self._tls = settings.tls.server_context()
        except TlsUnusable as error:
            raise CannotStart(f"gateway.tls: {error}") from error
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._settings = settings
        self._broker = broker
        self._keyring = keyring
        self._metrics = Metrics(deadline_s=settings.deadline_ms / 1000, tenants=tuple(tenants))
        self._verdicts = Verdicts(known_entries=settings.known_entries, recent_entries=settings.recent_entries)
        self._overrides = Overrides()
        self._steering = Steering(deadline_s=settings.deadline_ms / 1000)
        self._producer = Producer(broker, client_id=f"fediwarden-gateway-{self.name}")
        self._metrics.kafka.watch_producer(self._producer)
        self._tail = Tail(
            broker,
            (VERDICTS, SCANNERS, IMAGES_DEAD, OVERRIDES),
            since_s=settings.known_since_h * 3600,
            on_record=self._observe,
            client_id=f"fediwarden-gateway-{self.name}",
        )
        self._frames = FramePool(settings.frames)
        self._lists = Lists(settings.lists, gateway=self.name, metrics=self._metrics)
        self._recognition = Recognition(self._lists)
        self._list_store = ListStore(settings.lists.folder) if settings.lists.folder is not None else None
        learn = settings.lists.learn
        self._learning = (
            Learning(learn, self._list_store, self._verdicts.looks)
            if learn.source != "off" and self._list_store
            else None
        )
        self._bodies = Bodies(settings, needs_md5=lambda: self._recognition.needs_md5)
        self._opened = contextlib.AsyncExitStack()
        self._socket: socket.socket | None = None
        self._server: Server | None = None
        self._kafka_fault = "not connected yet"
        self._started_kafka = False
        self._stopping = False
        self._adopting: asyncio.Task[None] | None = None
        self._learner: asyncio.Task[None] | None = None
        self._fault: BaseException | None = None
        self._drained_by = 0.0

    def _assemble(self, storage: Storage) -> None:
        """Put together what keeps things on disk, and what depends on that."""
        settings, metrics = self._settings, self._metrics
        self._storage = storage
        self._ledger = Ledger(self._producer, journal=storage.own.journal, most=settings.ledger_entries)
        self._delivery = Delivery(
            producer=self._producer,
            storage=storage,
            steering=self._steering,
            metrics=metrics,
            spool_max_age_s=settings.spool_max_age_h * 3600,
        )
        self._flights = Flights(
            settings,
            gateway=self.name,
            frames=self._frames,
            recognition=self._recognition,
            keyring=self._keyring,
            delivery=self._delivery,
            verdicts=self._verdicts,
            overrides=self._overrides,
            metrics=metrics,
        )
        self._scans = Scans(
            settings,
            flights=self._flights,
            recognition=self._recognition,
            delivery=self._delivery,
            verdicts=self._verdicts,
            overrides=self._overrides,
            ledger=self._ledger,
            metrics=metrics,
        )
        metrics.watch("in_flight_bytes", lambda: self._bodies.held_bytes)
        metrics.watch("known", lambda: self._verdicts.known_count)
        metrics.watch("overrides", lambda: len(self._overrides))
        metrics.watch("scanners", self._verdicts.scanner_count)
        metrics.watch("ledger_waiting", lambda: self._ledger.waiting)
        tls = self._tls
        endpoints = Endpoints(
            gateway=self.name,
            tenants=self._tenants,
            bodies=self._bodies,
            scans=self._scans,
            ledger=self._ledger,
            metrics=metrics,
            parts=self.parts,
            publishing=Publishing(self._list_store, settings.lists.shared, settings.lists.reader_token),
            hashing=Hashing(settings.fetch, bodies=self._bodies, frames=self._frames),
        )
        moderation = OverrideEndpoints(
            self._settings.admin_token,
            bodies=self._bodies,
            overrides=self._overrides,
            editor=OverrideEditor(self._broker, self._producer, recall=self._recall),
            metrics=metrics,
        )
        self._server = Server(
            uvicorn.Config(
                create_app(endpoints, moderation),
                http=edge_protocol(settings.head_timeout_s),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                # The client's address decides on networks: never one that a header claims.
                proxy_headers=False,
                ssl_context_factory=None if tls is None else lambda *_: tls,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=settings.keep_alive_s,
                timeout_graceful_shutdown=max(1, round(settings.drain_s)),
            )
        )

    @property
    def port(self) -> int:
        """The port it listens on, after `start`."""
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    def parts(self) -> Sequence[Part]:
        """What readiness is made of."""
        stopping = self._server is not None and self._server.should_exit
        kafka = self._producer.connected
        positioned = self._tail.positioned
        workers = self._frames.ready
        scanners = self._verdicts.scanner_count()
        spooled = self._storage.images
        return (
            Part("serving", True, not stopping, "stopping" if stopping else ""),
            Part("kafka", True, kafka, "" if kafka else self._kafka_fault),
            Part("verdicts", True, positioned, "" if positioned else "past verdicts are still being read"),
            Part("frame_workers", True, workers, "" if workers else "no frame worker is ready"),
            Part(
                "spool",
                False,
                not spooled,
                f"{spooled or 'no'} image{'s wait' if spooled != 1 else ' waits'} on disk for Kafka",
            ),
            Part("scanners", False, scanners > 0, f"{scanners} announced"),
            self._lists.part(),
        )

    async def start(self) -> None:
        """Take the port and start the frame workers. Kafka is connected to by `serve`."""
        self._check_body_dir()
        try:
            storage = await self._opened.enter_async_context(open_storage(self._settings))
            self._assemble(storage)
            await self._ledger.restore(storage.own.journal)
            self._socket = self._opened.enter_context(
                bind(self._settings.host, self._settings.port, setting="gateway.port", host_setting="gateway.host")
            )
            await self._lists.start()
            self._opened.push_async_callback(self._lists.stop)
            await self._frames.start()
            listen(self._socket, setting="gateway.port", host_setting="gateway.host")
        except SpoolUnusable as error:
            await self._opened.aclose()
            raise CannotStart(str(error)) from error
        except BaseException:
            await self._opened.aclose()
            raise

    def stop(self) -> None:
        """Stop taking requests; `serve` returns when those in hand are answered. A second call does not wait.

        To be called on the event loop, which is where signal handlers of asyncio run.
        """
        if self._server is None:
            self._stopping = True
            return
        if self._server.should_exit:
            self._server.force_exit = True
        else:
            self._drained_by = asyncio.get_running_loop().time() + self._settings.drain_s
        # The socket closes within a moment; whoever was let in before that is still served.
        asyncio.get_running_loop().call_later(_LAST_REQUESTS_S, self._scans.drain)
        self._server.should_exit = True

    async def serve(self) -> None:
        """Serve until `stop`. Raises `TopicsNotReady` when Kafka is there and the topics are not."""
        assert self._socket is not None and self._server is not None, "start() comes first"
        if self._stopping:
            self.stop()
        log.info("gateway listening", host=self._settings.host, port=self.port, gateway=self.name)
        connecting = asyncio.create_task(self._connect(), name="gateway-connect")
        connecting.add_done_callback(self._connected)
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            await self._wind_down(connecting)
        if not connecting.cancelled() and (error := connecting.exception()) is not None:
            raise error
        if self._fault is not None:
            raise self._fault

    async def _connect(self) -> None:
        """Bring up the Kafka side, for as long as it takes."""
        pause = _RETRY_FIRST_S
        while True:
            try:
                await check_topics(self._broker, _TOPICS)
                await self._producer.start()
                for task in (self._ledger.start(), *self._delivery.start()):
                    self._watch(task)
                self._adopting = asyncio.create_task(self._adopt(), name="adopt")
                self._watch(self._adopting)
                if self._learning is not None:
                    self._learner = asyncio.create_task(self._learning.run(), name="learning")
                    self._watch(self._learner)
                self._started_kafka = True
                break
            except (BrokerUnavailable, BrokerRefused) as error:
                self._delivery.note_unreachable()
                if str(error) != self._kafka_fault:  # once, not at every try
                    log.warning("kafka not reached, trying again", error=str(error))
                self._kafka_fault = str(error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_MOST_S)
        self._kafka_fault = "the last attempt to publish failed"
        pause = _RETRY_FIRST_S
        while True:
            try:
                await self._tail.start()
                break
            except (BrokerUnavailable, BrokerRefused) as error:
                log.warning("verdicts not read, trying again", error=str(error), in_s=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_MOST_S)
        await self._tail.wait_positioned()
        log.info("gateway ready", known=self._verdicts.known_count, scanners=self._verdicts.scanner_count())
        # A gateway that hears no verdicts would answer everything by its deadline: rather start anew.
        await self._tail.wait_ended()

    def _watch(self, task: asyncio.Task[None]) -> None:
        """A part that ends by a fault of ours takes the gateway along: it is started anew."""

        def note_end(ended: asyncio.Task[None]) -> None:
            if not ended.cancelled() and (error := ended.exception()) is not None:
                log.error("a part of the gateway failed", part=ended.get_name(), error=repr(error))
                self._fault = error
                self.stop()

        task.add_done_callback(note_end)

    async def _adopt(self) -> None:
        """Take over what gateways that died left on this machine's disk, now and from time to time."""
        while True:
            try:
                for shelf in await self._storage.adopt():
                    await self._ledger.restore(shelf.journal)
                    self._watch(self._delivery.drain(shelf.frames))
            except SpoolUnusable as error:
                log.warning("what other gateways left is not taken over", error=str(error))
            await asyncio.sleep(_ADOPT_EVERY_S)

    def _recall(self, scan_id: str) -> Scanned | None:
        judgement = self._verdicts.judged(scan_id)
        return None if judgement is None else Scanned(judgement.sha256, judgement.looks.each())

    def _observe(self, received: Received) -> None:
        if received.topic == OVERRIDES:
            self._observe_override(received)
            return
        if received.imported and received.timestamp_ms < now_ms() - self._settings.known_since_h * HOUR_MS:
            return  # a year of it would drive out what is known; after a restart it would not be read either
        message = received.message
        if isinstance(message, Verdict | ImageFailed) and self._verdicts.awaits(message.scan_id):
            with tracing.span("verdict", kind="consumer", scan_id=message.scan_id, parent=received.trace):
                self._verdicts.observe(received)
        else:
            self._verdicts.observe(received)
        if received.imported:
            return
        match message:
            case Verdict(stage=Stage.LIVE | Stage.BACKLOG) as verdict:
                self._steering.judged(verdict.scan_id, verdict.topic, verdict.partition, verdict.scanner)
                if self._learning is not None:
                    self._learning.observe(verdict)
            case Verdict(stage=Stage.RESCAN) as verdict if self._learning is not None:
                self._learning.observe(verdict)
            case ScannerAnnounced() as announced if announced.leaving:
                self._steering.leaving(announced.scanner)

    def _observe_override(self, received: Received) -> None:
        before = self._overrides.get((received.key or b"").decode("ascii", "replace"))
        self._overrides.observe(received)
        override = received.message
        if isinstance(override, OverrideSet):
            if self._learning is not None:
                self._learning.heed(override)
            if self._tail.positioned:  # of those that were set before, some are taken back further on
                self._flights.heed(override)
        elif before is not None and received.fault is None and self._learning is not None:
            self._learning.take_back(before)

    def _connected(self, connecting: asyncio.Task[None]) -> None:
        if not connecting.cancelled() and connecting.exception() is not None:
            self.stop()

    async def _wind_down(self, connecting: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        for task in (self._adopting, self._learner):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        lost = await self._flights.drain(max(_LAST_CHANCE_S, self._drained_by - loop.time()))
        await self._delivery.stop()
        if not connecting.done():
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
        if self._started_kafka:
            # What Kafka does not take now is in the journal.
            away = self._delivery.kafka_away
            await self._ledger.flush(_LAST_CHANCE_S if away else max(_LAST_CHANCE_S, self._drained_by - loop.time()))
            await self._tail.stop()
            if away:
                await self._producer.stop(within_s=_LAST_CHANCE_S)
            else:
                await self._producer.stop()
        await self._frames.stop()
        log.info(
            "gateway stopped",
            lost_images=lost,
            images_on_disk=self._storage.images,
            answers_on_disk=self._ledger.waiting,
        )
        await self._opened.aclose()

    def _check_body_dir(self) -> None:
        folder = self._settings.body_dir
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotStart(f"gateway.body_dir {folder}: {error.strerror}; set it to a folder of ours") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise CannotStart(f"gateway.body_dir {folder} cannot be written to; set it to a folder of ours")


async def run_gateway(
    settings: GatewaySettings,
    tenants: Mapping[str, TenantSettings],
    broker: BrokerSettings,
    keyring: Keyring,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is in flight, hand it to Kafka and return.

    A second signal stops the waiting. Run it with uvloop. While Kafka cannot be reached it serves nonetheless
    (readyz says so) and keeps trying. Raises `CannotStart`, or `TopicsNotReady` when the topics are missing or wrong.
    """
    # It logs each malformed form with bytes from the client.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    allow_open_files()
    gateway = Gateway(settings, tenants, broker, keyring)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, gateway.stop)
    try:
        await gateway.start()
        await gateway.serve()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(RuntimeError):
                loop.remove_signal_handler(number)


__all__ = ["CannotStart", "Gateway", "TopicsNotReady", "run_gateway"]
