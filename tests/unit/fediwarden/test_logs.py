import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from fediwarden.logs import LogSettings, configure_logging, log_for_command


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging as it was, for the tests that come after."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logger.level for name, logger in _loggers()}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, logger in _loggers():
        logger.setLevel(levels.get(name, logging.NOTSET))
    logging.captureWarnings(False)
    structlog.reset_defaults()


def _loggers() -> list[tuple[str, logging.Logger]]:
    known = logging.Logger.manager.loggerDict.items()
    return [(name, logger) for name, logger in known if isinstance(logger, logging.Logger)]


def _configured(**settings: Any) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(LogSettings(**{"format": "json", **settings}), service="gateway", stream=stream)
    return stream


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_of_ours_is_one_json_line_with_time_level_logger_and_service() -> None:
    stream = _configured()
    structlog.get_logger("gateway.frames").info("worker_died", pid=7, sha256=bytes(range(32)))
    (line,) = _lines(stream)
    assert list(line)[:5] == ["timestamp", "level", "service", "logger", "event"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "service": "gateway",
        "event": "worker_died",
        "level": "info",
        "logger": "gateway.frames",
        "pid": 7,
        "sha256": bytes(range(32)).hex(),
    }


def test_an_event_of_a_library_is_a_json_line_too() -> None:
    stream = _configured()
    logging.getLogger("uvicorn.error").warning("slow %s", "client")
    (line,) = _lines(stream)
    assert (line["event"], line["logger"], line["level"]) == ("slow client", "uvicorn.error", "warning")


def test_a_terminal_gets_text_and_anything_else_gets_json_unless_told_otherwise() -> None:
    terminal = Terminal()
    configure_logging(LogSettings(), service="up", stream=terminal)
    structlog.get_logger("up").info("kafka_started", port=14092)
    assert "kafka_started" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")

    pipe = io.StringIO()
    configure_logging(LogSettings(), service="up", stream=pipe)
    structlog.get_logger("up").info("kafka_started", port=14092)
    assert _lines(pipe)[0]["port"] == 14092

    told = Terminal()
    configure_logging(LogSettings(format="json"), service="up", stream=told)
    structlog.get_logger("up").info("kafka_started", port=14092)
    assert _lines(told)[0]["port"] == 14092


@pytest.mark.parametrize("format_", ["json", "console"])
def test_secrets_are_masked_by_name_by_type_and_in_urls(format_: str) -> None:
    stream = _configured(format=format_)
    log = structlog.get_logger("x")
    log.info("one", sasl_password="hunter2", nested={"api_key": "hunter2"})
    log.info("two", key=SecretStr("hunter2"), several=[SecretStr("hunter2")])
    log.info("POST /api/v1/scan/hunter2 HTTP/1.1", url="http://h/api/v1/scan/hunter2?x=1")
    logging.getLogger("uvicorn.error").error("bad request: /api/v1/scan/%s", "hunter2")
    assert "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("***") >= 6


def test_the_reserved_word_of_pictrs_safety_is_no_secret() -> None:
    stream = _configured()
    structlog.get_logger("x").info("refused", path="/api/v1/scan/IPADDR")
    assert _lines(stream)[0]["path"] == "/api/v1/scan/IPADDR"


def test_bytes_longer_than_a_hash_are_not_shown() -> None:
    stream = _configured()
    structlog.get_logger("x").info("frame", jpeg=b"\xff\xd8" + b"pixels" * 100)
    assert _lines(stream)[0]["jpeg"] == "<602 bytes>"


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_traceback_is_logged_without_the_values_of_variables(format_: str) -> None:
    stream = _configured(format=format_)

    def fail(pixels: str) -> None:
        raise ValueError("no good")

    try:
        fail(" ".join(("very", "private", "pixels")))
    except ValueError:
        structlog.get_logger("x").exception("failed")
    assert "ValueError: no good" in stream.getvalue()
    assert "in fail" in stream.getvalue()
    assert "very private" not in stream.getvalue()


def test_the_level_holds_for_us_and_libraries_start_at_warning() -> None:
    stream = _configured(level="warning")
    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").warning("loud")
    assert [line["event"] for line in _lines(stream)] == ["loud"]
    stream = _configured(level="info")
    logging.getLogger("aiokafka.cluster").info("quiet")
    logging.getLogger("httpx").info("quiet")
    structlog.get_logger("x").info("loud")
    assert [line["event"] for line in _lines(stream)] == ["loud"]


def test_the_coordinator_chatter_of_aiokafka_shows_at_debug_only() -> None:
    chatter = "Marking the coordinator dead (node %s)for group %s."
    stream = _configured()
    logging.getLogger("aiokafka.consumer.group_coordinator").warning(chatter, 1, "g")
    assert _lines(stream) == []
    stream = _configured(level="debug")
    logging.getLogger("aiokafka.consumer.group_coordinator").warning(chatter, 1, "g")
    assert len(_lines(stream)) == 1


def test_aiokafka_says_the_same_thing_once_and_another_thing_at_once() -> None:
    stream = _configured()
    for _ in range(20):
        logging.getLogger("aiokafka.client").error('Unable connect to "%s:%s": %s', "h", 1, "refused")
    logging.getLogger("aiokafka.client").error("Unable to update metadata from %s", [0])
    assert len(_lines(stream)) == 2


def test_a_command_logs_errors_only_and_leaves_kafka_to_its_own_answer(capsys: pytest.CaptureFixture[str]) -> None:
    log_for_command()
    logging.getLogger("aiokafka.client").error("Unable to update metadata from %s", [0])
    structlog.get_logger("gateway.frames").info("frame_workers_started")
    assert capsys.readouterr() == ("", "")
    structlog.get_logger("gateway.frames").error("no_worker")
    assert "no_worker" in capsys.readouterr().err


def test_uvicorns_own_handlers_are_taken_away() -> None:
    own = logging.StreamHandler(io.StringIO())
    logging.getLogger("uvicorn").addHandler(own)
    stream = _configured()
    logging.getLogger("uvicorn.error").error("once")
    assert len(_lines(stream)) == 1
    assert own.stream.getvalue() == ""
