"""The relay's process: its ports, its parts, and what it does while Kafka is away (serve as ever, and remember)."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
import uvicorn

from gateway.listening import BACKLOG, CannotStart, Server, allow_open_files, bind, listen
from gateway.readiness import Part
from gateway.relay.forwarding import Forwarder, relay_protocol
from gateway.relay.health import Health
from gateway.relay.learning import Learner
from gateway.relay.metrics import RelayMetrics
from gateway.relay.origins import Origins, Recent
from gateway.relay.reading_back import ReadingBack
from gateway.relay.rejections import Rejections
from gateway.relay.settings import RelaySettings
from gateway.relay.uploaders import AskActor, Uploaders
from gateway.relay.upstream import Upstream
from gateway.replies import Receive, Scope, Send
from gateway.settings import TenantSettings
from schemas.broker import BrokerError, BrokerSettings, Producer, Received, Tail, check_topics
from schemas.messages import AnswerGiven, OriginObserved
from schemas.pseudonyms import Pseudonyms
from schemas.topics import ANSWERS, ORIGINS

log = structlog.get_logger("gateway.relay")

_ANSWERS_SINCE_S = 60.0
_RETRY_FIRST_S = 0.25
_RETRY_MOST_S = 10.0
_FLUSH_AWAY_S = 1.0
_LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))


class Relay:
    """One relay before one pict-rs for each tenant that has one. `serve` returns after `stop`.

    Raises `CannotStart` from the constructor (no pict-rs, ports that clash) or `start` (a taken port).
    """

    def __init__(
        self,
        settings: RelaySettings,
        tenants: Mapping[str, TenantSettings],
        broker: BrokerSettings,
        pseudonyms: Pseudonyms,
        ask_actors: Mapping[str, AskActor] | None = None,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._uploaders = {tenant: Uploaders(pseudonyms, ask) for tenant, ask in (ask_actors or {}).items()}
        self._ports = _ports_of(settings, tenants)
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._client_id = f"fediwarden-relay-{self.name}"
        self.metrics = RelayMetrics()
        self._origins = Origins(most=settings.max_waiting, metrics=self.metrics, settle=self._settle)
        self._rejections = Rejections(settle_s=settings.settle_s)
        self._producer = Producer(broker, client_id=self._client_id)
        self.metrics.kafka.watch_producer(self._producer)
        self._publishing = False
        self._tail: Tail | None = None
        self._upstreams: dict[str, Upstream] = {}
        self._readers: list[ReadingBack] = []
        self._forwarders: dict[str, Forwarder] = {}
        recent = Recent(most=settings.recent_entries, hold_s=settings.repeat_after_s)
        for tenant in self._ports:
            self._add(tenant, tenants[tenant], pseudonyms, recent)
        self._sockets: dict[str, socket.socket] = {}
        self._health_socket: socket.socket | None = None
        self._apps: dict[int, Forwarder | Health] = {}
        self._server = Server(
            uvicorn.Config(
                self,
                http=relay_protocol(settings.head_timeout_s),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=settings.keep_alive_s,
                timeout_graceful_shutdown=max(1, round(settings.drain_s)),
            )
        )

    async def _settle(self, origin: OriginObserved) -> OriginObserved:
        uploaders = self._uploaders.get(origin.tenant)
        return origin if uploaders is None else await uploaders.settle(origin)

    def _add(self, tenant: str, settings: TenantSettings, pseudonyms: Pseudonyms, recent: Recent) -> None:
        assert settings.pict_rs is not None, "only such tenants have a port"
        upstream = Upstream(settings.pict_rs, connect_within_s=self._settings.connect_within_s)
        reading_back = ReadingBack(upstream, enabled=self._settings.read_back)
        learner = Learner(
            tenant,
            settings.domain,
            pseudonyms=pseudonyms,
            offer=self._origins.offer,
            recent=recent,
            rejections=self._rejections,
            reading_back=reading_back,
            metrics=self.metrics,
            observer=self.name,
            uploaders=self._uploaders.get(tenant),
        )
        if settings.domain is None:
            log.warning("uploaders_stay_unknown", tenant=tenant, remedy=f"set tenants.{tenant}.domain")
        self._upstreams[tenant] = upstream
        self._readers.append(reading_back)
        self._forwarders[tenant] = Forwarder(
            upstream,
            learner.watch,
            self.metrics,
            linger_s=self._settings.linger_s,
            linger_bytes=self._settings.linger_bytes,
        )

    @property
    def ports(self) -> dict[str, int]:
        """The port before each tenant's pict-rs, after `start`."""
        return {tenant: int(each.getsockname()[1]) for tenant, each in self._sockets.items()}

    @property
    def health_port(self) -> int:
        """The port of /healthz, /readyz and /metrics, after `start`."""
        assert self._health_socket is not None, "start() comes first"
        return int(self._health_socket.getsockname()[1])

    @property
    def lingering(self) -> int:
        """Answers that are read to their end for nobody, now."""
        return sum(each.lingering for each in self._forwarders.values())

    @property
    def origins_waiting(self) -> int:
        """Origins that Kafka does not have yet."""
        return self._origins.waiting

    @property
    def published(self) -> int:
        """Origins that Kafka has got from us."""
        return self._origins.published

    def parts(self) -> Sequence[Part]:
        """What readiness is made of: images pass without Kafka, only nothing is learned for good."""
        kafka = self._publishing and self._producer.connected
        answers = self._tail is not None and self._tail.positioned
        waiting = self._origins.waiting
        return (
            Part("serving", True, not self._server.should_exit, "stopping" if self._server.should_exit else ""),
            *(
                Part(f"pict_rs_{tenant}", False, not each.failing, "it does not answer" if each.failing else "")
                for tenant, each in self._forwarders.items()
            ),
            Part("kafka", False, kafka, f"{waiting or 'no'} origin{'s wait' if waiting != 1 else ' waits'} for Kafka"),
            Part("answers", False, answers, "" if answers else "rejected images are not told apart"),
        )

    def start(self) -> None:
        """Take the ports."""
        try:
            for tenant, port in self._ports.items():
                setting = "relay.port" if len(self._ports) == 1 else f"tenants.{tenant}.relay_port"
                self._sockets[tenant] = self._take(port, setting)
            self._health_socket = self._take(self._settings.health_port, "relay.health_port")
        except CannotStart:
            self.close()
            raise
        health = Health(self.parts, self.metrics)
        self._apps = {port: self._forwarders[tenant] for tenant, port in self.ports.items()}
        self._apps[self.health_port] = health

    def _take(self, port: int, setting: str) -> socket.socket:
        taken = bind(self._settings.host, port, setting=setting, host_setting="relay.host")
        listen(taken, setting=setting, host_setting="relay.host")
        return taken

    def close(self) -> None:
        """Leave the ports again, where `serve` has not been called."""
        for each in (*self._sockets.values(), self._health_socket):
            if each is not None:
                each.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Every port's requests: each has an application of its own."""
        await self._apps[scope["server"][1]](scope, receive, send)

    def stop(self) -> None:
        """Stop taking requests; a second call does not wait for those in hand."""
        if self._server.should_exit:
            self._server.force_exit = True
        self._server.should_exit = True

    async def serve(self) -> None:
        """Serve until `stop`, whatever becomes of Kafka."""
        assert self._health_socket is not None, "start() comes first"
        log.info("relay listening", host=self._settings.host, ports=self.ports, health_port=self.health_port)
        beside = [
            asyncio.create_task(self._keep_up(self._publish, "origins are not published"), name="publish"),
            asyncio.create_task(self._keep_up(self._follow, "answers are not read"), name="follow"),
        ]
        for reader in self._readers:
            reader.start()
        try:
            await self._server.serve(sockets=[*self._sockets.values(), self._health_socket])
        finally:
            await self._wind_down(beside)

    async def _publish(self) -> None:
        await check_topics(self._broker, (ORIGINS,))
        await self._producer.start()
        self._publishing = True
        log.info("relay ready", relay=self.name)
        await self._origins.publish(self._producer)

    async def _follow(self) -> None:
        await check_topics(self._broker, (ANSWERS,))
        tail = Tail(
            self._broker,
            (ANSWERS,),
            since_s=_ANSWERS_SINCE_S,
            on_record=self._observe,
            client_id=self._client_id,
        )
        try:
            await tail.start()
            self._tail = tail
            await tail.wait_ended()
        finally:
            self._tail = None
            await tail.stop()

    def _observe(self, received: Received) -> None:
        if isinstance(received.message, AnswerGiven):
            self._rejections.observe(received.message)

    async def _keep_up(self, part: Callable[[], Awaitable[None]], without: str) -> None:
        """Run `part`, and again when it fails: nothing about Kafka may end the relay."""
        pause, said = _RETRY_FIRST_S, ""
        while True:
            try:
                await part()
            except BrokerError as error:
                if str(error) != said:  # once, not at every try
                    log.warning(without, error=str(error))
                said = str(error)
            except Exception:  # the edge of a task, whose fault must not take pict-rs away from Lemmy
                log.exception(without)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_MOST_S)

    async def _wind_down(self, beside: Sequence[asyncio.Task[None]]) -> None:
        self._rejections.give_up()
        for reader in self._readers:
            await reader.stop()
        left = self._origins.waiting
        if self._publishing:
            left = await self._origins.flush(self._settings.drain_s if self._producer.connected else _FLUSH_AWAY_S)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await self._producer.stop(within_s=_FLUSH_AWAY_S)
        for upstream in self._upstreams.values():
            upstream.close()
        log.info("relay stopped", origins_lost=left)


def _ports_of(settings: RelaySettings, tenants: Mapping[str, TenantSettings]) -> dict[str, int]:
    """The port before each pict-rs. Raises `CannotStart`."""
    with_one = {name: tenant for name, tenant in tenants.items() if tenant.pict_rs is not None}
    if not with_one:
        raise CannotStart("the relay stands before no pict-rs: set tenants.NAME.pict_rs to pict-rs's own address")
    ports: dict[str, int] = {}
    for name, tenant in with_one.items():
        port = tenant.relay_port
        if port is None and len(with_one) > 1:
            raise CannotStart(f"several tenants have a pict_rs: set tenants.{name}.relay_port")
        port = settings.port if port is None else port
        if port and port in (settings.health_port, *ports.values()):
            raise CannotStart(f"tenants.{name}: port {port} is taken by another part of the relay; give it its own")
        ports[name] = port
    for name, tenant in with_one.items():
        assert tenant.pict_rs is not None
        upstream = Upstream(tenant.pict_rs, connect_within_s=settings.connect_within_s)
        if upstream.port in ports.values() and upstream.host in _LOOPBACK | {settings.host}:
            raise CannotStart(f"tenants.{name}.pict_rs is the relay itself: set it to pict-rs's own address")
    return ports


async def run_relay(
    settings: RelaySettings,
    tenants: Mapping[str, TenantSettings],
    broker: BrokerSettings,
    pseudonyms: Pseudonyms,
    ask_actors: Mapping[str, AskActor] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then end what is in flight and return. A second signal stops the waiting.

    `ask_actors` has, by tenant, who knows the ActivityPub ids of its uploaders. Kafka being away, or refusing us, is no
    reason to end. Raises `CannotStart`.
    """
    allow_open_files()
    relay = Relay(settings, tenants, broker, pseudonyms, ask_actors)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, relay.stop)
    try:
        relay.start()
        await relay.serve()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
