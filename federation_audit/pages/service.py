"""The process of the pages: from settings to a port, and back out again."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from federation_audit import intake
from federation_audit.accounts.database import Database
from federation_audit.accounts.passwords import Passwords
from federation_audit.alerting import make_runner
from federation_audit.pages.account import account_area
from federation_audit.pages.actions import actions_area
from federation_audit.pages.app import make_app
from federation_audit.pages.decisions import decisions_area
from federation_audit.pages.downloads import downloads_area
from federation_audit.pages.entrance import entrance_area
from federation_audit.pages.instances import instances_area
from federation_audit.pages.outgoing import outgoing_area
from federation_audit.pages.overview import overview_area
from federation_audit.pages.rescans import rescans_area
from federation_audit.pages.review import review_area
from federation_audit.pages.reviewed import reviewed_area
from federation_audit.pages.settings import PagesSettings
from federation_audit.pages.site import Area, Site, Surroundings
from federation_audit.pages.users import users_area
from federation_audit.pages.viewing import viewing_area
from federation_audit.publishing import OriginPublisher
from schemas.broker import BrokerUnavailable
from schemas.messages import OriginObserved
from schemas.pseudonyms import Pseudonyms
from schemas.tls import TlsUnusable

log = structlog.get_logger("federation_audit.pages")

_BACKLOG = 256
_AT_ONCE = 200
_KEEP_ALIVE_S = 60
_DRAIN_S = 5


class CannotServe(Exception):
    """The port cannot be taken, or the certificate not used; the message names the settings and the remedy."""


def all_areas(*, viewing: bool = True) -> list[Area]:
    """The parts of the pages in the order of the navigation. The first that a role may see is its start page.

    `viewing`: whether the list of who looked at pictures stands there.
    """
    return [
        entrance_area(),
        account_area(),
        overview_area(),
        instances_area(),
        review_area(),
        reviewed_area(),
        decisions_area(),
        downloads_area(),
        outgoing_area(),
        rescans_area(),
        viewing_area(listed=viewing),
        users_area(),
        actions_area(),
    ]


class Pages:
    """The pages on a port. `serve` returns when `stop` was called and the requests in hand are answered.

    Raises `CannotServe` for a certificate that cannot be used.
    """

    def __init__(
        self,
        settings: PagesSettings,
        database: Database,
        *,
        passwords: Passwords | None = None,
        surroundings: Surroundings | None = None,
        areas: Sequence[Area] | None = None,
    ) -> None:
        self._settings = settings
        viewing = surroundings is not None and surroundings.audit.viewing.enabled
        self.site = Site(settings, database, areas or all_areas(viewing=viewing), passwords, surroundings)
        self._beside: list[Callable[[], Coroutine[Any, Any, None]]] = []
        for_programs = self._take_origins(self.site.surroundings)
        runner = make_runner(self.site.surroundings.audit, database, self.site.assessor)
        if runner is not None:
            self._beside.append(runner.run)
        if self.site.rescans is not None:
            self._beside.append(self.site.rescans.run)
        proxies = settings.trusted_proxies
        try:
            tls = settings.tls.server_context()
        except TlsUnusable as error:
            raise CannotServe(f"audit.pages.tls: {error}") from error
        self._server = _Server(
            uvicorn.Config(
                make_app(self.site, for_programs),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,  # addresses of pages name who is looked into
                proxy_headers=bool(proxies),
                forwarded_allow_ips=",".join(map(str, proxies)),
                server_header=False,
                ssl_context_factory=None if tls is None else lambda *_: tls,
                backlog=_BACKLOG,
                limit_concurrency=_AT_ONCE,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_DRAIN_S,
            )
        )
        self._socket: socket.socket | None = None

    def _take_origins(self, surroundings: Surroundings) -> FastAPI:
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        tokens, broker = surroundings.origin_tokens, surroundings.broker
        publish: intake.Publish = _refuse
        if tokens:
            assert broker is not None, "see Surroundings"
            publisher = OriginPublisher(broker, client_id=f"fediwarden-intake-{name}")
            publish = publisher.publish
            self._beside.append(publisher.run)
        pseudonyms = surroundings.pseudonyms or Pseudonyms({})
        return intake.make_app(intake.make_router(tokens, publish, pseudonyms, observer=f"intake-{name}"))

    @property
    def url(self) -> str:
        """Where the pages are, after `listen`: as browsers reach them if that is set, else on this machine."""
        host = self._settings.host
        scheme = self._settings.tls.scheme
        return self._settings.public_url or f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def port(self) -> int:
        """The port, after `listen`."""
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    def listen(self) -> None:
        """Take the port. Raises `CannotServe`."""
        host, port = self._settings.host, self._settings.port
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise CannotServe(
                f"cannot listen on {host}:{port} ({error.strerror or error}):"
                " set audit.pages.port or audit.pages.host, or stop what holds the port"
            ) from error

    def stop(self) -> None:
        """Stop taking requests. A second call does not wait for those in hand."""
        if self._server.should_exit:
            self._server.force_exit = True
        self._server.should_exit = True

    async def serve(self) -> None:
        """Serve until `stop`."""
        assert self._socket is not None, "listen() comes first"
        log.info("pages listening", url=self.url)
        beside = [asyncio.create_task(run()) for run in self._beside]
        for task in beside:
            task.add_done_callback(_note_end)
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            self._socket.close()
            log.info("pages stopped")


def _note_end(ended: asyncio.Task[Any]) -> None:
    """What works beside the pages ends with them alone: else it is a fault of ours, which nobody would hear of."""
    if not ended.cancelled() and (error := ended.exception()) is not None:
        log.error("a part beside the pages failed", error=repr(error))


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run_pages`: uvicorn raises them again at its end, which spoils the exit code."""
        yield


async def _refuse(_origin: OriginObserved) -> None:
    raise BrokerUnavailable("nobody has a token for origins, so there is no connection to Kafka")


async def run_pages(database: Database, surroundings: Surroundings) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is in hand and return. Raises `CannotServe`."""
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs what was typed
    pages = Pages(surroundings.audit.pages, database, surroundings=surroundings)
    pages.listen()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, pages.stop)
    try:
        await pages.serve()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(RuntimeError):
                loop.remove_signal_handler(number)
