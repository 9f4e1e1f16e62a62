"""Stills and animations, decoded by Pillow (JPEG XL by its plugin)."""

import hashlib
import io
import warnings
from collections.abc import Sequence

import av
import av.error
import pillow_jxl.JpegXLImagePlugin
from av.container import InputContainer
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile, UnidentifiedImageError

from gateway.frames import containers
from gateway.frames.budget import Budget
from gateway.frames.frame import Unreadable, UnreadableReason
from gateway.frames.renditions import Footage, Moment, fit, shrink, turned
from gateway.frames.sampling import Sampler, signature
from gateway.frames.settings import FrameSettings

_FORMATS = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/apng": "PNG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
    "image/avif": "AVIF",
    "image/jxl": "JXL",
}
_LARGE = 2_000_000  # pixels above which a kept frame is halved or more before it waits to be chosen

AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the sandbox lets no thread start: the workers are the parallelism
pillow_jxl.JpegXLImagePlugin.DECODE_THREADS = 0
ImageFile.LOAD_TRUNCATED_IMAGES = False
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def extract_image(data: bytes, media_type: str, settings: FrameSettings, budget: Budget) -> Footage:
    """The moments of an image file of a known `media_type`. Raises `Unreadable`."""
    Image.MAX_IMAGE_PIXELS = settings.max_pixels // 2  # Pillow refuses at twice this; `check_size` comes first
    durations = _inspect(data, media_type, budget)
    try:
        with Image.open(io.BytesIO(data), formats=[_FORMATS[media_type]]) as image:
            budget.check_size(*image.size)
            if len(durations) > 1:
                seed = int.from_bytes(hashlib.sha256(data).digest())
                return _animation(image, durations, settings, budget, seed)
            return _still(image, media_type, settings)
    except Unreadable:
        raise
    except MemoryError:
        raise Unreadable(UnreadableReason.TOO_MUCH_MEMORY, "decoding needs more memory than allowed") from None
    except Image.DecompressionBombError:
        detail = f"more than {settings.max_pixels / 1e6:g} million pixels"
        raise Unreadable(UnreadableReason.TOO_LARGE, detail) from None
    except UnidentifiedImageError:
        raise Unreadable(UnreadableReason.DAMAGED, f"the header of this {media_type} is damaged") from None
    except Exception as error:  # noqa: BLE001 - decoders raise whatever they like on hostile bytes; all mean this
        if media_type == "image/jxl":  # its plugin's words say nothing to anyone
            raise Unreadable(UnreadableReason.DAMAGED, "the JPEG XL data is damaged or ends early") from None
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        raise Unreadable(_reason(error), detail[:200]) from None


def _inspect(data: bytes, media_type: str, budget: Budget) -> containers.Durations:
    """Looks at the structure before any decoder does; the frame durations, empty or one for a still."""
    if media_type == "image/gif":
        return containers.gif_durations(data)
    if media_type == "image/apng":
        return containers.apng_durations(data)
    if media_type == "image/png":
        for _ in containers.png_chunks(data):
            pass
    elif media_type == "image/webp":
        header = containers.webp_header(data)
        budget.check_size(header.width, header.height)
        return header.durations
    elif media_type == "image/avif":
        containers.check_iso_complete(data)
        return _avif_durations(data)
    elif media_type == "image/jxl":
        jxl = containers.jxl_header(data)
        budget.check_size(jxl.width, jxl.height)
        if jxl.animated:
            # The plugin shows the first frame only, and a verdict on that would vouch for frames nobody looked at.
            raise Unreadable(UnreadableReason.UNSUPPORTED, "animated JPEG XL cannot be looked through here")
    return ()


def _avif_durations(data: bytes) -> containers.Durations:
    """An image sequence's frame durations from its track's sample table; a still has none."""
    if data[8:12] != b"avis":
        if any(kind == b"moov" for kind, _, _ in containers.boxes(data)):
            # Some software would play the track and some show the picture: a verdict on one would vouch for both.
            raise Unreadable(UnreadableReason.UNSUPPORTED, "an AVIF picture with a video track beside it")
        return ()
    best: list[int] = []
    try:
        options = {"codec_whitelist": "libdav1d", "threads": "1"}
        with av.open(io.BytesIO(data), format="mov", options=options, metadata_errors="replace") as container:
            assert isinstance(container, InputContainer)
            found: dict[int, list[int]] = {}
            for packet in container.demux():
                if packet.size:
                    shown = float((packet.duration or 0) * (packet.time_base or 0)) * 1000
                    found.setdefault(packet.stream_index, []).append(max(1, round(shown)))
            best = max(found.values(), key=len, default=[])
    except av.error.FFmpegError as error:
        raise Unreadable(UnreadableReason.DAMAGED, f"the AVIF's track is damaged: {error}"[:200]) from None
    return tuple(best)


def _still(image: ImageFile.ImageFile, media_type: str, settings: FrameSettings) -> Footage:
    width, height = image.size
    if media_type == "image/jpeg":
        image.draft(None, fit(width, height, settings.size))
    image.load()
    # libjxl has already turned the picture.
    orientation = 1 if media_type == "image/jxl" else _orientation(image)
    shown = turned(width, height, orientation)
    return Footage(*shown, 0, [Moment(0, shrink(image, settings.size, orientation))])


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block turns nothing
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _animation(
    image: ImageFile.ImageFile, durations: Sequence[int], settings: FrameSettings, budget: Budget, seed: int
) -> Footage:
    """Goes through every frame: each builds on the one before, so there is no jumping ahead."""
    width, height = image.size
    sampler: Sampler[Image.Image] = Sampler(durations, settings.max_frames, seed=seed)
    for index in range(len(durations)):
        budget.check_time(f"decoding frame {index + 1} of {len(durations)}")
        try:
            image.seek(index)
        except EOFError:
            detail = f"frame {index + 1} of {len(durations)} is missing"
            raise Unreadable(UnreadableReason.TRUNCATED, detail) from None
        budget.check_size(*image.size)
        image.load()
        sampler.see(signature(image), lambda: _kept(image, settings.size))
    orientation = _orientation(image)
    moments = [Moment(at, shrink(kept, settings.size, orientation)) for at, kept in sampler.chosen()]
    return Footage(*turned(width, height, orientation), sum(durations), moments)


def _kept(image: Image.Image, size: int) -> Image.Image:
    if image.width * image.height <= _LARGE:
        return image.copy()
    kept = image.convert("RGBA") if image.has_transparency_data else image.convert("RGB")
    smaller = kept.reduce(max(2, max(image.size) // (2 * size)))
    smaller.info = dict(image.info)
    return smaller


def _reason(error: Exception) -> UnreadableReason:
    text = str(error).lower()
    if isinstance(error, EOFError) or "truncated" in text or "unexpected end" in text:
        return UnreadableReason.TRUNCATED
    return UnreadableReason.DAMAGED
