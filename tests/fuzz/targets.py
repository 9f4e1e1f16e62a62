"""What the fuzzer throws bytes at, and what must hold of whatever comes.

A target takes any bytes. It returns, or raises where the code under test broke its word: another error than the one
that it documents, or a result that contradicts itself. The first line of the input chooses where two things are needed.
"""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgpack

from fediwarden.secret_files import SECRETS_VARIABLE
from fediwarden.settings import CONFIG_VARIABLE, SettingsError, effective_settings, load_settings
from gateway.frames import containers
from gateway.frames.frame import Unreadable
from gateway.frames.sniff import sniff
from gateway.frames.worker import unpack
from gateway.lists.errors import ListInvalid
from gateway.lists.files import as_text, parse_list
from gateway.multipart import MultipartFile
from gateway.refusals import Refusal
from scanner.policy.errors import PolicyError
from scanner.policy.parsing import parse_policy
from schemas.codec import CodecError, decode, encode

_LABELS = ("safety-s/NSFL", "safety-s/NSFW", "open-nsfw/nsfw")
_LIST_MOST = 1000
_SECRET = "sekrit-of-the-fuzzer"


def fuzz_codec(data: bytes) -> None:
    """schema, newline, value: a `CodecError`, or a message that is the same after another round."""
    schema, _, value = data.partition(b"\n")
    try:
        message = decode(schema.decode("latin-1"), value)
    except CodecError:
        return
    again = decode(f"{message.SCHEMA}/{message.VERSION}", encode(message))
    assert encode(again) == encode(message)


def fuzz_policy(data: bytes) -> None:
    """A policy's text: a `PolicyError` with a place in it, or a policy that judges."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # as the file's reader says, before the parser
    try:
        policy = parse_policy(text, _LABELS, source="fuzzed", embedders=("clip",))
    except PolicyError as error:
        assert 0 <= error.line <= text.count("\n") + text.count("\r") + 1, error
        return
    for value in (0.0, 0.5, 1.0):
        policy.judge([dict.fromkeys(policy.scores, value)])


def fuzz_multipart(data: bytes) -> None:
    """content type, newline, body: a `Refusal`, or a file; the same whether the body comes at once or in pieces."""
    head, _, body = data.partition(b"\n")
    content_type = head.decode("latin-1")
    at_once = _read_form(content_type, [body])
    size = 1 + len(head) % 7
    assert _read_form(content_type, [body[at : at + size] for at in range(0, len(body), size)]) == at_once


def _read_form(content_type: str, pieces: Sequence[bytes]) -> bytes | str:
    try:
        form = MultipartFile(content_type)
        file = b"".join(itertools.chain.from_iterable(form.feed(piece) for piece in pieces))
        form.finish()
    except Refusal as refusal:
        return refusal.code.value
    return file


def fuzz_answer(data: bytes) -> None:
    """What a frame worker answers, once hostile bytes have taken it over: ValueError or TypeError, or frames."""
    with contextlib.suppress(ValueError, TypeError, msgpack.UnpackException):
        found = unpack(msgpack.unpackb(data, max_array_len=64, max_map_len=64))
        assert 1 <= len(found.frames) <= 8


def fuzz_containers(data: bytes) -> None:
    """A file, as far as Python looks into it before a decoder does: `Unreadable`, or durations above zero."""
    with contextlib.suppress(Unreadable):
        match sniff(data):
            case "image/gif":
                assert all(duration > 0 for duration in containers.gif_durations(data))
            case "image/apng":
                assert all(duration > 0 for duration in containers.apng_durations(data))
            case "image/png":
                assert all(end <= len(data) for end in (at + length for _, at, length in containers.png_chunks(data)))
            case "image/webp":
                assert all(duration > 0 for duration in containers.webp_header(data).durations)
            case "image/jxl":
                assert containers.jxl_header(data).width > 0
            case "image/avif" | "video/mp4" | "video/quicktime":
                containers.check_iso_complete(data)
                assert all(end <= len(data) for _, _, end in containers.boxes(data))
            case "video/webm" | "video/x-matroska":
                containers.check_ebml_complete(data)


def fuzz_lists(data: bytes) -> None:
    """A hash list that a stranger wrote: `ListInvalid`, or hashes that our own text gives back."""
    try:
        parsed = parse_list(data, "fuzzed", kind=None, most=_LIST_MOST)
    except ListInvalid as error:
        assert error.line >= 0
        return
    text = "\n".join(as_text(parsed.hashes)).encode()
    assert list(as_text(parse_list(text, "again", kind=None, most=_LIST_MOST).hashes)) == text.decode().splitlines()


def fuzz_settings(data: bytes) -> None:
    """fediwarden.toml: a `SettingsError` that repeats no secret, or settings that can be shown, secrets masked."""
    with tempfile.TemporaryDirectory(prefix="fediwarden-fuzz-") as folder:
        file = Path(folder, "fediwarden.toml")
        file.write_bytes(data)
        kept = {name: os.environ.pop(name) for name in list(os.environ) if name.upper().startswith("FEDIWARDEN_")}
        os.environ[CONFIG_VARIABLE] = str(file)
        os.environ.pop(SECRETS_VARIABLE, None)
        try:
            settings = load_settings()
            shown = repr(effective_settings(settings))
        except SettingsError as error:
            shown = str(error)
        finally:
            del os.environ[CONFIG_VARIABLE]
            os.environ.update(kept)
    assert _SECRET not in shown


TARGETS: dict[str, Callable[[bytes], None]] = {
    "codec": fuzz_codec,
    "policy": fuzz_policy,
    "multipart": fuzz_multipart,
    "answer": fuzz_answer,
    "containers": fuzz_containers,
    "lists": fuzz_lists,
    "settings": fuzz_settings,
}
RUNS = {
    "codec": 5_000,
    "policy": 1_000,
    "multipart": 5_000,
    "answer": 10_000,
    "containers": 10_000,
    "lists": 5_000,
    "settings": 100,
}
"""How often each runs in CI: seconds, all together."""

CORPUS = Path(__file__).parent / "corpus"
