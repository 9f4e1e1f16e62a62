"""What a file's own structure says before anything is decoded: sizes, frame durations, whether the end is missing.

Written from the formats' specifications: GIF89a; PNG 3rd edition; RFC 9649 (WebP); ISO/IEC 14496-12 boxes;
RFC 8794 (EBML); ISO/IEC 18181-1 (JPEG XL codestream header). Only lengths and plain numbers are read here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.frames.frame import Unreadable, UnreadableReason

Durations = tuple[int, ...]
"""Milliseconds of every frame, in order; all > 0."""


def _shown(ms: int) -> int:
    """Browsers show frames of 10 ms and less for 100 ms (WebKit's rule, which the others follow)."""
    return ms if ms > 10 else 100


def _truncated(detail: str) -> Unreadable:
    return Unreadable(UnreadableReason.TRUNCATED, detail)


def gif_durations(data: bytes) -> Durations:
    """A GIF's frame durations. Raises `Unreadable` (truncated, damaged)."""
    durations: list[int] = []
    pending = 0
    try:
        at = 13 + _table_bytes(data, 10)
        while True:
            introducer = data[at] if at < len(data) or not durations else 0x3B
            if introducer == 0x3B:
                break
            if introducer == 0x21:
                if data[at + 1] == 0xF9:
                    pending = 10 * int.from_bytes(data[at + 4 : at + 6], "little")
                at = _skip_blocks(data, at + 2)
            elif introducer == 0x2C:
                durations.append(_shown(pending))
                pending = 0
                at = _skip_blocks(data, at + 10 + _table_bytes(data, at + 9) + 1)
            else:
                raise Unreadable(UnreadableReason.DAMAGED, f"unknown GIF block 0x{introducer:02x}")
    except IndexError:
        raise _truncated("the GIF ends inside a block") from None
    if not durations:
        raise Unreadable(UnreadableReason.DAMAGED, "the GIF has no frame")
    return tuple(durations)


def _table_bytes(data: bytes, at: int) -> int:
    flags = data[at]
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_blocks(data: bytes, at: int) -> int:
    while length := data[at]:
        at += length + 1
    return at + 1


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, offset of its data, length) of each chunk. Raises `Unreadable` (truncated)."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if at + 12 + length > len(data):
            break
        yield kind, at + 8, length
        if kind == b"IEND":
            return
        at += 12 + length
    raise _truncated("the PNG ends before its last chunk")


def apng_durations(data: bytes) -> Durations:
    """An animated PNG's frame durations; the still picture that some hide before the animation counts as one."""
    durations: list[int] = []
    for kind, at, _length in png_chunks(data):
        if kind == b"fcTL":
            numerator = int.from_bytes(data[at + 20 : at + 22], "big")
            denominator = int.from_bytes(data[at + 22 : at + 24], "big") or 100
            durations.append(_shown(round(1000 * numerator / denominator)))
        elif kind == b"IDAT" and not durations:
            durations.append(100)
    return tuple(durations)


@dataclass(frozen=True, slots=True)
class WebpHeader:
    """Canvas size in pixels and the frame durations (one of 0 frames: a still)."""

    width: int
    height: int
    durations: Durations


def webp_header(data: bytes) -> WebpHeader:
    """Size and durations of a WebP from its chunks. Raises `Unreadable` (truncated, damaged)."""
    if 8 + int.from_bytes(data[4:8], "little") > len(data) + 1:
        raise _truncated("the WebP is shorter than its header says")
    size: tuple[int, int] | None = None
    durations: list[int] = []
    at = 12
    while at + 8 <= len(data):
        kind, length, body = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little"), at + 8
        if kind == b"VP8X" and size is None:
            size = (1 + _le24(data, body + 4), 1 + _le24(data, body + 7))
        elif kind == b"VP8 " and size is None:
            size = (_le16(data, body + 6) & 0x3FFF, _le16(data, body + 8) & 0x3FFF)
        elif kind == b"VP8L" and size is None:
            bits = int.from_bytes(data[body + 1 : body + 5], "little")
            size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif kind == b"ANMF":
            durations.append(_shown(_le24(data, body + 12)))
        at = body + length + (length & 1)
    if size is None:
        raise Unreadable(UnreadableReason.DAMAGED, "the WebP names no size")
    return WebpHeader(size[0], size[1], tuple(durations))


def _le16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _le24(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, offset of its content, end) of each top-level ISO box. Raises `Unreadable` (truncated)."""
    at = 0
    while at + 8 <= len(data):
        length, body = int.from_bytes(data[at : at + 4], "big"), at + 8
        if length == 1:
            length, body = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        end = len(data) if length == 0 else at + length
        if end > len(data):
            raise _truncated("the file ends inside a box")
        if length not in (0, 1) and length < 8:
            raise Unreadable(UnreadableReason.DAMAGED, "a box is shorter than its own header")
        yield data[at + 4 : at + 8], body, end
        at = max(end, body)


def check_iso_complete(data: bytes) -> None:
    """Raises `Unreadable` when an MP4, MOV or AVIF file ends inside one of its top-level boxes."""
    for _ in boxes(data):
        pass


def check_ebml_complete(data: bytes) -> None:
    """Raises `Unreadable` when a webm or Matroska file is shorter than its Segment says."""
    _, header, after_id = _ebml_number(data, 4)
    at = after_id + header
    if data[at : at + 4] != b"\x18\x53\x80\x67":
        raise Unreadable(UnreadableReason.DAMAGED, "no Segment follows the EBML header")
    unknown, length, body = _ebml_number(data, at + 4)
    if not unknown and body + length > len(data):
        raise _truncated("the video is shorter than its Segment says")


def _ebml_number(data: bytes, at: int) -> tuple[bool, int, int]:
    """A variable-size integer (RFC 8794, 4): (all ones: unknown, value, offset after it)."""
    first = data[at] if at < len(data) else 0
    width = 9 - first.bit_length()
    if first == 0 or at + width > len(data):
        raise _truncated("the video ends inside its header")
    value = int.from_bytes(data[at : at + width], "big")
    ones = (1 << (7 * width)) - 1
    return value & ones == ones, value & ones, at + width


@dataclass(frozen=True, slots=True)
class JxlHeader:
    """Size in pixels as stored, and whether the codestream is an animation."""

    width: int
    height: int
    animated: bool


def jxl_header(data: bytes) -> JxlHeader:
    """Reads SizeHeader and the start of ImageMetadata (ISO/IEC 18181-1, 9.2 and D.3). Raises `Unreadable`."""
    bits = _Bits(_jxl_codestream(data)[:64])
    width, height = _jxl_size(bits)
    animated = False
    if not bits.take(1) and bits.take(1):
        bits.take(3)
        if bits.take(1):
            _jxl_size(bits)
        if bits.take(1):
            raise Unreadable(UnreadableReason.UNSUPPORTED, "JPEG XL files with a preview are not accepted")
        animated = bool(bits.take(1))
    return JxlHeader(width, height, animated)


def _jxl_codestream(data: bytes) -> bytes:
    if data.startswith(b"\xff\x0a"):
        return data[2:66]
    for kind, body, end in boxes(data):
        if kind in (b"jxlc", b"jxlp"):
            start = body + (4 if kind == b"jxlp" else 0)
            if data[start : start + 2] == b"\xff\x0a":
                return data[start + 2 : min(end, start + 66)]
    raise Unreadable(UnreadableReason.DAMAGED, "the JPEG XL container holds no codestream")


def _jxl_size(bits: "_Bits") -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else 1 + bits.take((9, 13, 18, 30)[bits.take(2)])

    height = side()
    ratio = bits.take(3)
    if ratio == 0:
        return side(), height
    across, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * across // down, height


class _Bits:
    """Little-endian bit reader over a short header."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise _truncated("the file ends inside its header")
        self._left -= count
        taken = self._value & ((1 << count) - 1)
        self._value >>= count
        return taken
