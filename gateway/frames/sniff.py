"""What a file is, by its content alone: a Content-Type or a file name is never looked at."""

from gateway.frames.frame import Unreadable, UnreadableReason

# Brands of ISO/IEC 14496-12 files as registered at mp4ra.org; those that say "a video a browser plays".
_MP4_BRANDS = frozenset(
    {b"isom", b"iso2", b"iso3", b"iso4", b"iso5", b"iso6", b"iso7", b"iso8", b"iso9", b"mp41", b"mp42", b"mp71"}
    | {b"avc1", b"av01", b"M4V ", b"M4VH", b"M4VP", b"f4v ", b"dash", b"MSNV", b"mmp4", b"3gp4", b"3gp5", b"3gp6"}
)
_NOT_READ_HERE: tuple[tuple[bytes, str], ...] = (
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"qoif", "QOI"),
    (b"BM", "BMP"),
    (b"FLV\x01", "Flash video"),
    (b"OggS", "Ogg"),
)


def sniff(data: bytes) -> str:
    """The media type of `data`: one of image/{jpeg,png,apng,gif,webp,avif,jxl} and video/{mp4,webm,...}.

    Raises `Unreadable`: empty, unsupported (an image or video of a kind that is not accepted), not_an_image.
    """
    if not data:
        raise Unreadable(UnreadableReason.EMPTY, "the body is empty")
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/apng" if _has_animation_control(data) else "image/png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")):
        return "image/jxl"
    if data[4:8] == b"ftyp":
        return _sniff_iso(data)
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return _sniff_ebml(data)
    return _refuse(data)


def _has_animation_control(data: bytes) -> bool:
    """Whether an acTL chunk comes before the first IDAT (PNG 3rd edition, 11.3.6.1)."""
    at = 8
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 8]
        if kind == b"acTL":
            return True
        if kind in (b"IDAT", b"IEND"):
            return False
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _sniff_iso(data: bytes) -> str:
    length = min(int.from_bytes(data[:4], "big"), 4096, len(data))
    major = data[8:12]
    brands = {major} | {data[at : at + 4] for at in range(16, length - 3, 4)}
    if major in (b"avif", b"avis") or brands & {b"avif", b"avis"}:
        return "image/avif"
    if major == b"qt  ":
        return "video/quicktime"
    if brands & {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}:
        raise Unreadable(UnreadableReason.UNSUPPORTED, "HEIF pictures are not accepted")
    if brands & _MP4_BRANDS:
        return "video/mp4"
    name = major.decode("ascii", "replace").strip()
    raise Unreadable(UnreadableReason.UNSUPPORTED, f"MP4-like file of unknown brand {name!r}")


def _sniff_ebml(data: bytes) -> str:
    """EBML's DocType element (RFC 8794, id 0x4282) tells webm from other Matroska files."""
    at = data.find(b"\x42\x82", 4, 128)
    name = data[at + 3 : at + 3 + (data[at + 2] & 0x7F)].rstrip(b"\0") if 0 < at < len(data) - 3 else b""
    if name == b"webm":
        return "video/webm"
    if name == b"matroska":
        return "video/x-matroska"
    raise Unreadable(UnreadableReason.UNSUPPORTED, "EBML file that is neither webm nor Matroska")


def _refuse(data: bytes) -> str:
    for magic, name in _NOT_READ_HERE:
        if data.startswith(magic):
            raise Unreadable(UnreadableReason.UNSUPPORTED, f"{name} files are not accepted")
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        raise Unreadable(UnreadableReason.UNSUPPORTED, "SVG files are not accepted")
    if data.startswith(b"%PDF-"):
        raise Unreadable(UnreadableReason.NOT_AN_IMAGE, "this is a PDF document")
    if head.startswith((b"<!doctype html", b"<html")):
        raise Unreadable(UnreadableReason.NOT_AN_IMAGE, "this is an HTML page")
    raise Unreadable(UnreadableReason.NOT_AN_IMAGE, "the content is of no known image or video format")
