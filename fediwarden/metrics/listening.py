"""The port of `/metrics` for a process that has no HTTP of its own: prometheus_client's server, in a thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, start_http_server

from fediwarden.metrics.settings import MetricsSettings

log = structlog.get_logger("fediwarden.metrics")

OFFSETS: Final = {"recorder": 0, "enforcer": 1, "lemmy": 2}
"""Which of the row of ports that begins at `metrics.port` each process of `fediwarden up` has."""

FIRST_SCANNER: Final = 10
"""So many ports on are the scanners', one after another."""


class CannotListen(Exception):
    """The port of the metrics cannot be taken; the message names the setting and the remedy."""


@contextmanager
def showing(registry: CollectorRegistry, settings: MetricsSettings) -> Iterator[None]:
    """Show what `registry` collects within the context, if there is a port for it. Raises `CannotListen`."""
    if settings.port is None:
        yield
        return
    try:
        server, thread = start_http_server(settings.port, addr=settings.host, registry=registry)
    except OSError as error:
        raise CannotListen(
            f"metrics cannot be shown on {settings.host}:{settings.port} ({error.strerror or error}):"
            " set metrics.port or metrics.host, or unset metrics.port to do without"
        ) from error
    log.info("metrics listening", host=settings.host, port=settings.port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def port_under_up(settings: MetricsSettings, name: str) -> int | None:
    """The port of the process that `fediwarden up` runs by that name; None where there is none for it."""
    if settings.port is None:
        return None
    if name in OFFSETS:
        return settings.port + OFFSETS[name]
    service, _, number = name.partition("-")
    return settings.port + FIRST_SCANNER + (int(number) - 1 if number else 0) if service == "scanner" else None
