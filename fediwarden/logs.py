"""Logging: structlog for our own code, everything else routed into the same stream.

One line an event on standard error: coloured text on a terminal, JSON elsewhere. Secrets and pixels are kept out by a
last look at every event, whoever wrote it.
"""

import logging
import re
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretBytes, SecretStr
from structlog.typing import Processor

Level = Literal["debug", "info", "warning", "error"]
Event = MutableMapping[str, Any]

_SECRET_NAME = re.compile(r"passw|secret|token|authorization|credential|api_?key|tenant_key|private", re.IGNORECASE)
_SCAN_KEY = re.compile(r"(/api/v1/scan/)(?!IPADDR\b)[^\s/?#\"']+")
_MASK = "***"
_HASH_BYTES = 32
_REPEAT_S = 30.0

# aiokafka looks for the coordinator again by itself; while a fresh cluster makes its offsets topic this is no news.
_COORDINATOR_CHATTER = ("Marking the coordinator dead", "Group Coordinator Request failed")


class LogSettings(BaseModel):
    """What is logged, and how it looks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["auto", "console", "json"] = Field(
        "auto", description="`console` for people, `json` for machines; `auto` is console on a terminal, else json."
    )
    level: Level = Field("info", description="Least severe level that is logged.")


def configure_logging(settings: LogSettings, *, service: str, stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (standard error), as `settings` say.

    `service` is the process's part (gateway, scanner, up); JSON lines carry it. May be called again.
    """
    out = stream if stream is not None else sys.stderr
    as_json = settings.format == "json" or (settings.format == "auto" and not out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    # Tracebacks without the values of variables: those hold keys and pixels.
    rendering: list[Processor] = (
        [
            _named(service),
            structlog.processors.format_exc_info,
            _guard,
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ]
        if as_json
        else [
            _guard,
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=28
            ),
        ]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    handler.addFilter(_Calm())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    _quieten(settings.level)
    logging.captureWarnings(True)


def log_for_command() -> None:
    """Logging of a command that answers a person and ends: only what its own answer will not say."""
    configure_logging(LogSettings(format="console", level="error"), service="command")
    # That Kafka is away ends such a command with an error of ours; aiokafka need not say it as well.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def _quieten(level: Level) -> None:
    """Other people's loggers: through our handler, and no chattier than a warning unless all is asked for."""
    floor = logging.DEBUG if level == "debug" else max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()])
    for name in ("aiokafka", "httpx", "httpcore", "asyncio", "PIL", "jgo", "urllib3", "py.warnings", "alembic"):
        logging.getLogger(name).setLevel(floor)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
    logging.getLogger("uvicorn").setLevel(floor)


class _Calm(logging.Filter):
    """Holds back what aiokafka repeats: the same line at most every 30 s, coordinator look-ups only at debug."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("aiokafka"):
            return True
        template = str(record.msg)
        if template.startswith(_COORDINATOR_CHATTER):
            return logging.getLogger().isEnabledFor(logging.DEBUG)
        now = time.monotonic()
        said = self._last.get((record.name, template))
        if said is not None and now - said < _REPEAT_S:
            return False
        self._last[record.name, template] = now
        return True


def _named(service: str) -> Processor:
    """Name the process and bring what every line has to its front."""

    def order(_logger: object, _method: str, event: Event) -> Event:
        front = {name: event.pop(name) for name in ("timestamp", "level") if name in event}
        front["service"] = service
        return front | {name: event.pop(name) for name in ("logger", "event") if name in event} | dict(event)

    return order


def _guard(_logger: object, _method: str, event: Event) -> Event:
    """Mask what is secret by its name, its type or its place in a URL, and shorten bytes to what identifies them."""
    return {name: _guarded(name, value) for name, value in event.items()}


def _guarded(name: str, value: object) -> object:
    if value is not None and _SECRET_NAME.search(name):
        return _MASK
    if isinstance(value, str):
        return _SCAN_KEY.sub(rf"\g<1>{_MASK}", value) if "/api/v1/scan/" in value else value
    if isinstance(value, SecretStr | SecretBytes):
        return _MASK
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex() if len(value) <= _HASH_BYTES else f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {str(key): _guarded(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_guarded(name, each) for each in value]
    return value
