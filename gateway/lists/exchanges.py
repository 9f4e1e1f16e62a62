"""Hash exchanges, by the fetchers of Meta's package `threatexchange` (the extra ``fediwarden[exchanges]``).

A source is ``exchange:NAME`` or ``exchange:NAME?option=value&...``: ncmec, stop_ncii, fb_threatexchange, tat,
local_file; options are the fields of that exchange's own configuration. Credentials come from the environment
variables that the package names. Only what its fetchers yield is used; its indexes are pickles and are never touched,
and its checkpoints are not kept: each refresh reads the whole exchange.
"""

import dataclasses
import enum
import importlib
import typing
from typing import Any
from urllib.parse import parse_qsl

from gateway.lists.errors import ListInvalid, SourceFailed
from gateway.lists.files import Parsed
from gateway.lists.hashes import HashSet
from gateway.lists.kinds import WIDTH, HashKind
from schemas.extras import install_command

PREFIX = "exchange:"

_IMPLEMENTATIONS = {
    "ncmec": ("ncmec_api", "NCMECSignalExchangeAPI"),
    "stop_ncii": ("stop_ncii_api", "StopNCIISignalExchangeAPI"),
    "fb_threatexchange": ("fb_threatexchange_api", "FBThreatExchangeSignalExchangeAPI"),
    "tat": ("techagainstterrorism_api", "TATSignalExchangeAPI"),
    "local_file": ("file_api", "LocalFileSignalExchangeAPI"),
}


def fetch_exchange(source: str, *, most: int) -> Parsed:
    """Every PDQ, sha256 and md5 hash that an exchange gives. Raises `SourceFailed` or `ListInvalid`."""
    name, _, query = source.removeprefix(PREFIX).partition("?")
    if name not in _IMPLEMENTATIONS:
        raise SourceFailed(f"{source}: no exchange {name!r}; there are {', '.join(_IMPLEMENTATIONS)}")
    exchange, types = _load(name)
    collaboration = _configure(source, exchange, dict(parse_qsl(query, keep_blank_values=True)))
    try:
        api = exchange.for_collab(collaboration)
        if name == "stop_ncii":
            signals = _stop_ncii(api, types)
        else:
            fetched: dict[Any, Any] = {}
            for delta in api.fetch_iter(list(types), None):
                exchange.naive_fetch_merge(fetched, delta.updates)
                if len(fetched) > 2 * most:
                    raise _too_many(source, most)
            signals = exchange.naive_convert_to_signal_type(list(types), collaboration, fetched)
    except ListInvalid:
        raise
    except Exception as error:  # the package lets through whatever its HTTP client and its parsers raise
        hint = error.pretty_str() if hasattr(error, "pretty_str") else getattr(error, "message", "") or str(error)
        raise SourceFailed(f"{source}: {type(error).__name__}: {' '.join(hint.split())[:400]}") from error
    return _collect(source, signals, types, most)


def _load(name: str) -> tuple[Any, dict[Any, HashKind]]:
    module, class_name = _IMPLEMENTATIONS[name]
    try:
        exchange = getattr(importlib.import_module(f"threatexchange.exchanges.impl.{module}"), class_name)
        pdq = importlib.import_module("threatexchange.signal_type.pdq.signal").PdqSignal
        md5 = importlib.import_module("threatexchange.signal_type.md5").VideoMD5Signal
        sha256 = importlib.import_module("threatexchange.signal_type.sha256").VideoSHA256Signal
    except ImportError as error:
        raise SourceFailed(
            f"exchange {name}: {error}; install what it needs: `make exchanges`, or {install_command('exchanges')}"
        ) from error
    return exchange, {pdq: HashKind.PDQ, md5: HashKind.MD5, sha256: HashKind.SHA256}


def _configure(source: str, exchange: Any, options: dict[str, str]) -> Any:
    config = exchange.get_config_cls()
    fields = {field.name for field in dataclasses.fields(config) if field.init}
    own = {"name": "fediwarden", "api": exchange.get_name(), "enabled": True}
    own = {name: value for name, value in own.items() if name in fields}
    unknown = sorted(set(options) - (fields - set(own)))
    if unknown:
        known = ", ".join(sorted(fields - set(own))) or "none"
        raise SourceFailed(f"{source}: unknown option {unknown[0]!r}; this exchange has: {known}")
    hints = typing.get_type_hints(config)
    try:
        return config(**own, **{name: _typed(hints[name], text) for name, text in options.items()})
    except (TypeError, ValueError, KeyError) as error:
        raise SourceFailed(f"{source}: {error}; write options as exchange:NAME?option=value&other=value") from error


def _typed(hint: Any, text: str) -> Any:
    """`text` as the configuration's field wants it: str, int, an enumeration's name, or a set of one of them."""
    origin, arguments = typing.get_origin(hint), [each for each in typing.get_args(hint) if each is not type(None)]
    if origin in (set, list, tuple, frozenset):
        return origin(_typed(arguments[0], each) for each in text.split(","))
    if origin is not None and arguments:
        return _typed(arguments[0], text)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        by_name = {each.name.lower(): each for each in hint}
        return by_name[text.lower()] if text.lower() in by_name else hint(text)
    return hint(text) if hint in (int, float, str) else text


def _stop_ncii(api: Any, types: dict[Any, HashKind]) -> dict[Any, set[str]]:
    """What StopNCII has and nobody has withdrawn, by its client.

    The package's own conversion (1.2.17) looks for the states of a case among the hashes' values: what people have
    withdrawn would stay on the list.
    """
    of_kind = {kind: signal_type for signal_type, kind in types.items()}
    names = {"ImagePDQ": of_kind[HashKind.PDQ], "VideoMD5": of_kind[HashKind.MD5]}
    signals: dict[Any, set[str]] = {signal_type: set() for signal_type in names.values()}
    for page in api.api.fetch_hashes_iter():
        for record in page.hashRecords:
            hashes = signals.get(names.get(record.signalType.value), set())
            if record.hashStatus.value in ("Withdrawn", "Deleted"):
                hashes.discard(record.hashValue)
            else:
                hashes.add(record.hashValue)
    return signals


def _collect(source: str, signals: Any, types: dict[Any, HashKind], most: int) -> Parsed:
    packed = {kind: bytearray() for kind in HashKind}
    passed_over = count = 0
    for signal_type, hashes in signals.items():
        kind = types[signal_type]
        for text in hashes:
            try:
                digest = bytes.fromhex(text)
            except ValueError:
                digest = b""
            if len(digest) != WIDTH[kind]:
                passed_over += 1
                continue
            packed[kind] += digest
            count += 1
    if count > most:
        raise _too_many(source, most)
    if not count:
        raise ListInvalid(source, "the exchange gives no PDQ, sha256 or md5 hash", remedy="check its options")
    return Parsed(HashSet.from_packed(packed), passed_over)


def _too_many(source: str, most: int) -> ListInvalid:
    return ListInvalid(source, f"more than {most} hashes", remedy="raise gateway.lists.max_hashes")
