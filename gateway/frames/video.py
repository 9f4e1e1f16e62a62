"""Videos, decoded by FFmpeg's libraries through PyAV: four containers' worth of two demuxers, six decoders."""

import bisect
import functools
import io
import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import av.error
import numpy as np
from av.codec.context import CodecContext
from av.container import InputContainer
from av.packet import Packet as AnyPacket
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from PIL import Image

from gateway.frames import containers
from gateway.frames.budget import Budget
from gateway.frames.frame import Unreadable, UnreadableReason
from gateway.frames.renditions import Footage, Moment, fit, shrink
from gateway.frames.sampling import Sampler, Signature, even_times, signature
from gateway.frames.settings import FrameSettings

if TYPE_CHECKING:
    Packet = AnyPacket[VideoStream]
else:
    Packet = AnyPacket  # generic in its type stubs alone

_DEMUXERS = {
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
}
_DECODERS = ("h264", "vp8", "vp9", "libdav1d")
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders drop the alpha channel
_OPTIONS = {"codec_whitelist": "h264,vp8,vp9,libdav1d,libvpx,libvpx-vp9", "threads": "1"}
# The list holds for probing, too, and so does the one thread: the sandbox lets none start.
_SHORT_FRAMES, _SHORT_PIXELS = 64, 60_000_000  # a video up to this is gone through frame by frame, as a GIF is
_LONGEST_MS = 1_000_000_000
_TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}

av.logging.set_level(None)


@dataclass(frozen=True, slots=True)
class _Track:
    """All packets of the video track in decoding order, and when each shown frame begins and how long it shows."""

    stream: VideoStream
    alpha: bool
    packets: list[Packet]
    stamps: list[int]
    durations: list[int]


def extract_video(data: bytes, media_type: str, settings: FrameSettings, budget: Budget) -> Footage:
    """The moments of a video file of a known `media_type`. Raises `Unreadable`.

    Short videos are gone through frame by frame; of longer ones the frames at even steps of time are decoded, each
    from the keyframe before it.
    """
    if _DEMUXERS[media_type] == "mov":
        containers.check_iso_complete(data)
    else:
        containers.check_ebml_complete(data)
    try:
        with av.open(
            io.BytesIO(data), format=_DEMUXERS[media_type], options=_OPTIONS, metadata_errors="replace"
        ) as container:
            assert isinstance(container, InputContainer)
            return _footage(container, settings, budget)
    except MemoryError:
        raise Unreadable(UnreadableReason.TOO_MUCH_MEMORY, "decoding needs more memory than allowed") from None
    except av.error.FFmpegError as error:
        raise Unreadable(UnreadableReason.DAMAGED, f"{type(error).__name__}: {error}"[:200]) from None


def _footage(container: InputContainer, settings: FrameSettings, budget: Budget) -> Footage:
    track = _track(container, budget)
    context = track.stream.codec_context
    budget.check_size(context.width, context.height)
    count = len(track.stamps)
    short = count <= _SHORT_FRAMES and count * context.width * context.height <= _SHORT_PIXELS
    chosen = (_walk if short else _jump)(_decoder(track), track, settings, budget)
    first = chosen[0][1]
    degrees = _rotation(track) if track.alpha else first.rotation
    shown = (first.height, first.width) if round(degrees / 90) % 2 else (first.width, first.height)
    moments = [Moment(at_ms, _picture(frame, settings.size, degrees)) for at_ms, frame in chosen]
    return Footage(*shown, sum(track.durations), moments)


def _track(container: InputContainer, budget: Budget) -> _Track:
    streams = [s for s in container.streams.video if not int(s.disposition) & int(av.stream.Disposition.attached_pic)]
    if not streams:
        raise Unreadable(UnreadableReason.NOT_AN_IMAGE, "the file has no video track")
    if len(streams) > 1:
        # Which of them is shown depends on the player: a verdict on one would vouch for the others.
        raise Unreadable(UnreadableReason.UNSUPPORTED, "the file has more than one video track")
    stream = streams[0]
    packets: list[Packet] = []
    begins: dict[int, int] = {}
    for packet in container.demux(stream):
        budget.check_time("reading the video")
        if packet.size == 0:
            continue
        stamp = _stamp(packet)
        if stamp is None:
            raise Unreadable(UnreadableReason.DAMAGED, "a frame of the video has no time")
        packets.append(packet)
        if not packet.is_discard:
            begins[stamp] = packet.duration or 0
    if not begins:
        raise Unreadable(UnreadableReason.DAMAGED, "the video track has no frames")
    stamps = sorted(begins)
    last = begins[stamps[-1]] or (stamps[-1] - stamps[-2] if len(stamps) > 1 else 1)
    base = float(stream.time_base or 0) * 1000
    times = [round((stamp - stamps[0]) * base) for stamp in (*stamps, stamps[-1] + last)]
    durations = [min(max(1, after - before), _LONGEST_MS) for before, after in itertools.pairwise(times)]
    alpha = stream.metadata.get("alpha_mode") == "1" and stream.codec_context.name in _WITH_ALPHA
    return _Track(stream, alpha, packets, stamps, durations)


def _stamp(packet: Packet) -> int | None:
    return packet.pts if packet.pts is not None else packet.dts


def _decoder(track: _Track) -> VideoCodecContext:
    """A decoder from the allow-list, not yet opened."""
    own = track.stream.codec_context
    if own.name not in _DECODERS:
        raise Unreadable(UnreadableReason.UNSUPPORTED, f"{own.name} video is not accepted: h264, vp8, vp9, av1 are")
    own.thread_count, own.thread_type = 1, "NONE"
    if not track.alpha:
        return own
    decoder = CodecContext.create(_WITH_ALPHA[own.name], "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata = own.extradata
    decoder.width, decoder.height = own.width, own.height
    decoder.thread_count = 1
    return decoder


def _rotation(track: _Track) -> int:
    """Degrees anticlockwise by the track's display matrix, which only the stream's own decoder passes on."""
    frames = track.stream.codec_context.decode(track.packets[0]) + track.stream.codec_context.decode(None)
    return frames[0].rotation if frames else 0


def _decoded(
    decoder: VideoCodecContext, packets: list[Packet], first: int, wanted: Collection[int] | None = None
) -> Iterator[tuple[int, VideoFrame]]:
    """(packet index reached, frame) from packet `first` to the end; only what `wanted` stamps need, if given."""
    for index in range(first, len(packets) + 1):
        packet = packets[index] if index < len(packets) else None
        if wanted is not None and packet is not None:
            decoder.skip_frame = "DEFAULT" if _stamp(packet) in wanted else "NONREF"
        try:
            frames = decoder.decode(packet)
        except (av.error.InvalidDataError, av.error.EOFError):
            continue
        for frame in frames:
            yield index, frame


def _walk(
    decoder: VideoCodecContext, track: _Track, settings: FrameSettings, budget: Budget
) -> list[tuple[int, VideoFrame]]:
    found: dict[int, VideoFrame] = {}
    for _, frame in _decoded(decoder, track.packets, 0):
        budget.check_time("decoding the video")
        budget.check_size(frame.width, frame.height)
        if frame.pts is not None:
            found[frame.pts] = frame
    if 2 * len(found) < len(track.stamps):
        raise _too_little(len(found), len(track.stamps))
    sampler: Sampler[VideoFrame] = Sampler(track.durations, settings.max_frames)
    shown = found[min(found)]
    for stamp in track.stamps:
        shown = found.get(stamp, shown)  # a frame that cannot be decoded leaves the one before on the screen
        sampler.see(_mark(shown), functools.partial(_same, shown))
    return sampler.chosen()


def _same(frame: VideoFrame) -> VideoFrame:
    return frame


def _jump(
    decoder: VideoCodecContext, track: _Track, settings: FrameSettings, budget: Budget
) -> list[tuple[int, VideoFrame]]:
    keys = [index for index, packet in enumerate(track.packets) if packet.is_keyframe] or [0]
    index_of = {_stamp(packet): index for index, packet in enumerate(track.packets)}
    chosen: list[tuple[int, VideoFrame]] = []
    reached = -1
    frames: Iterator[tuple[int, VideoFrame]] = iter(())
    wanted = _wanted(track, settings.max_frames)
    stamps = {stamp for _, stamp in wanted}
    for at_ms, stamp in wanted:
        key = keys[max(0, bisect.bisect_right(keys, index_of[stamp]) - 1)]
        if key > reached:
            decoder.flush_buffers()
            frames = _decoded(decoder, track.packets, key, stamps)
        for index, frame in frames:
            reached = index
            budget.check_time("decoding the video")
            budget.check_size(frame.width, frame.height)
            if frame.pts is not None and frame.pts >= stamp:
                chosen.append((at_ms, frame))
                break
    if 2 * len(chosen) < len(wanted):
        raise _too_little(len(chosen), len(wanted))
    return chosen


def _too_little(decoded: int, wanted: int) -> Unreadable:
    """Some damage is shown by players and judged here; a video that is mostly illegible is not."""
    return Unreadable(UnreadableReason.DAMAGED, f"only {decoded} of {wanted} frames can be decoded")


def _wanted(track: _Track, count: int) -> list[tuple[int, int]]:
    """(milliseconds from the start, time stamp) of the frames shown at even steps of time."""
    ends = np.cumsum(track.durations)
    total = int(ends[-1])
    indices = {
        min(int(np.searchsorted(ends, moment, side="right")), len(ends) - 1) for moment in even_times(total, count)
    }
    return [(int(ends[i]) - track.durations[i], track.stamps[i]) for i in sorted(indices)]


def _mark(frame: VideoFrame) -> Signature:
    small = frame.reformat(64, 64, "rgb24", interpolation=Interpolation.AREA, threads=1)
    return signature(Image.fromarray(small.to_ndarray()))


def _picture(frame: VideoFrame, size: int, degrees: int) -> Image.Image:
    """The frame as a small RGB picture, turned anticlockwise by `degrees`, alpha over the backdrop."""
    width, height = fit(frame.width, frame.height, size)
    kind = "rgba" if frame.format.name.startswith("yuva") else "rgb24"
    small = frame.reformat(width, height, kind, interpolation=Interpolation.AREA, threads=1)
    image = shrink(Image.fromarray(small.to_ndarray()), size)
    turn = _TURNS.get(round(degrees / 90) % 4)
    return image if turn is None else image.transpose(turn)
