"""Which requests to pict-rs tell something about where an image comes from.

pict-rs 0.5's paths: uploads (``POST /image``, ``/image/backgrounded`` and its claim, ``/internal/import``), downloads
(``/image/download?url=``), and everything that is asked for by ``proxy=``.
"""

from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_plus, urlsplit, urlunsplit

from schemas.domains import NotADomain, domain_of

URL_MOST = 4096

_FILTERS = ("blur", "crop", "identity", "resize", "thumbnail")
_LIMITS = ("max_width", "max_height", "max_area", "max_frame_count", "max_file_size")
_KINDS = ("allow_image", "allow_animation", "allow_video")
_OF_PICT_RS = frozenset(("alias", "src", "backgrounded", *_FILTERS, *_LIMITS, *_KINDS))
"""Parameters that pict-rs itself has: they end an address that was put into the query as it is."""

_OF_VARIANTS = ("/image/process.", "/image/process_backgrounded.", "/image/details/process.")


class Way(Enum):
    """How an image comes into pict-rs, or is asked for."""

    UPLOAD = "upload"
    UPLOAD_BACKGROUNDED = "upload-backgrounded"
    IMPORT = "import"
    DOWNLOAD = "download"
    CLAIM = "claim"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class Aim:
    """What a request is after: `url` for downloads and proxied images, `upload_id` for a claim.

    `original` says that the body of a good answer is the stored file itself. `query` names the image as this request
    did, for a request of our own.
    """

    way: Way
    url: str = ""
    upload_id: str = ""
    original: bool = False
    query: bytes = b""

    @property
    def uploads(self) -> bool:
        """Whether a user's own file is in the request, and so whose token it carries is the uploader's."""
        return self.way in (Way.UPLOAD, Way.UPLOAD_BACKGROUNDED)


def aim_of(method: str, path: str, query: bytes) -> Aim | None:
    """What the request is after; None where it tells nothing."""
    if method == "POST":
        way = {
            "/image": Way.UPLOAD,
            "/image/backgrounded": Way.UPLOAD_BACKGROUNDED,
            "/internal/import": Way.IMPORT,
        }.get(path)
        return None if way is None else Aim(way)
    if method not in ("GET", "HEAD") or not path.startswith("/image/"):
        return None
    if path == "/image/download":
        return _of_address(Way.DOWNLOAD, query, b"url")
    if path == "/image/backgrounded/claim":
        upload_id = next((value for name, value in _pairs(query) if name == b"upload_id"), b"")
        return Aim(Way.CLAIM, upload_id=_plain(upload_id)[:64]) if upload_id else None
    if path == "/image/original":
        return _of_address(Way.PROXY, query, b"proxy", original=method == "GET")
    if path == "/image/details/original" or path.startswith(_OF_VARIANTS):
        return _of_address(Way.PROXY, query, b"proxy")
    return None


def _of_address(way: Way, query: bytes, parameter: bytes, *, original: bool = False) -> Aim | None:
    pairs = _pairs(query)
    at = next((number for number, (name, _) in enumerate(pairs) if name == parameter), None)
    if at is None:
        return None
    value = pairs[at][1]
    as_it_is = value.lower().startswith((b"http://", b"https://"))
    url = without_user(_written_out(pairs, at) if as_it_is else _plain(value))
    return None if url is None else Aim(way, url=url, original=original, query=parameter + b"=" + value)


def _written_out(pairs: list[tuple[bytes, bytes]], at: int) -> str:
    """The address as Lemmy knows it where it did not encode it: what follows belongs to it, up to a word of pict-rs's.

    pict-rs itself takes the part before the first ``&`` for the whole.
    """
    parts = [pairs[at][1]]
    for name, value in pairs[at + 1 :]:
        if _plain(name) in _OF_PICT_RS:
            break
        parts.append(name + b"=" + value if value else name)
    return b"&".join(parts).decode("latin-1")


def without_user(url: str) -> str | None:
    """The address without a user and password; None where it is none that a message can carry."""
    try:
        domain_of(url)
        parts = urlsplit(url)
    except (NotADomain, ValueError):
        return None
    if "@" in parts.netloc:
        url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return url if len(url) <= URL_MOST else None


def _pairs(query: bytes) -> list[tuple[bytes, bytes]]:
    split = (each.partition(b"=") for each in query.split(b"&") if each)
    return [(name, value) for name, _, value in split]


def _plain(value: bytes) -> str:
    return unquote_plus(value.decode("latin-1"), errors="replace")
