"""Videos, decoded by FFmpeg's libraries through PyAV: four containers' worth of two demuxers, six decoders."""

import bisect
import functools
import hashlib
import io
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import av.error
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
from gateway.frames.sampling import ASSURED, Sampler, Signature, scattered_times, signature
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
# What may be decoded, in pixels. One core does 330 to 690 million a second (vp9, h264, vp8, av1; looking at each frame
# takes another quarter), so these are about 2 and 3 to 6 of the 8 seconds there are.
_FULL_COST, _SCATTERED_COST = 600_000_000, 2_100_000_000
_FRAME_COST = 100_000  # pixels: a frame of any size takes 0.1 to 0.3 ms
_BYTE_COST = 4  # pixels: at high bit rates the bytes set the pace (41 MB of h264 take half a second in any size)
_SCATTERED = (64, 48, 32, 24, 16, 12)
_LARGE = 2_500_000  # pixels above which a kept frame is shrunk before it waits to be chosen
_LONGEST_MS = 1_000_000_000
_TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}

av.logging.set_level(None)


@dataclass(frozen=True, slots=True)
class _Track:
    """All packets of the video track in decoding order, and its shown frames in order of time.

    Of each shown frame: its time stamp, its packet's index, how many ms it shows, and when it ends, in ms from the
    start of the first.
    """

    stream: VideoStream
    alpha: bool
    packets: list[Packet]
    keys: list[int]
    stamps: list[int]
    packet_of: list[int]
    durations: list[int]
    ends: list[int]

    def key_before(self, packet: int) -> int:
        """The index of the packet from which decoding must start to get that of `packet`."""
        return self.keys[max(0, bisect.bisect_right(self.keys, packet) - 1)]


def extract_video(data: bytes, media_type: str, settings: FrameSettings, budget: Budget) -> Footage:
    """The moments of a video file of a known `media_type`. Raises `Unreadable`.

    Every frame is looked at where decoding all takes about two seconds (900 frames of 854 x 480, 60 of
    3840 x 2160); then the promises of `sampling` hold. Of larger videos it is the frames at 14 to 66
    `scattered_times`, as many as can be reached from their keyframes in a few seconds (66 at 900 frames of
    1920 x 1080, 14 to 26 at 3840 x 2160), and what `Sampler` says of samples holds.
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
            return _footage(container, data, settings, budget)
    except MemoryError:
        raise Unreadable(UnreadableReason.TOO_MUCH_MEMORY, "decoding needs more memory than allowed") from None
    except av.error.FFmpegError as error:
        raise Unreadable(UnreadableReason.DAMAGED, f"{type(error).__name__}: {error}"[:200]) from None


def _footage(container: InputContainer, data: bytes, settings: FrameSettings, budget: Budget) -> Footage:
    track = _track(container, budget)
    context = track.stream.codec_context
    budget.check_size(context.width, context.height)
    plan = _plan(track, context.width * context.height, data)
    chosen, first = _look(_decoder(track), track, plan, settings, budget)
    degrees = _rotation(track) if track.alpha else first.rotation
    shown = (first.height, first.width) if round(degrees / 90) % 2 else (first.width, first.height)
    moments = [Moment(at_ms, _picture(frame, settings.size, degrees)) for at_ms, frame in chosen]
    return Footage(*shown, track.ends[-1], moments)


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
    keys = [index for index, packet in enumerate(packets) if packet.is_keyframe] or [0]
    index_of = {_stamp(packet): index for index, packet in enumerate(packets) if not packet.is_discard}
    packet_of = [index_of[stamp] for stamp in stamps]
    ends = list(itertools.accumulate(durations))
    return _Track(stream, alpha, packets, keys, stamps, packet_of, durations, ends)


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


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which of the shown frames are looked at, in order, what each weighs, and from which share on all are wanted."""

    weights: dict[int, int]
    assured: float
    seed: int
    complete: bool


def _plan(track: _Track, pixels: int, data: bytes) -> _Plan:
    """All frames by their durations, or those at as many scattered moments as can be afforded, 14 at the least."""
    seed = int.from_bytes(hashlib.sha256(data).digest())
    if _cost(track, range(len(track.stamps)), pixels) <= _FULL_COST:
        return _Plan(dict(enumerate(track.durations)), ASSURED, seed, complete=True)
    weights: dict[int, int] = {}
    for count in _SCATTERED:
        times = scattered_times(track.ends[-1], count, seed)
        last = len(track.ends) - 1
        weights = Counter(min(bisect.bisect_right(track.ends, time), last) for time in times)
        if _cost(track, weights, pixels) <= _SCATTERED_COST:
            break
    return _Plan(weights, (2 if count > 32 else 1) / len(times), seed, complete=False)


def _cost(track: _Track, indices: Iterable[int], pixels: int) -> int:
    """What it takes to decode these shown frames, of `pixels` each, from the keyframes before them; in pixels."""
    last: dict[int, int] = {}
    for packet in (track.packet_of[index] for index in indices):
        key = track.key_before(packet)
        last[key] = max(packet, last.get(key, 0))
    return sum(
        pixels + _FRAME_COST + _BYTE_COST * packet.size
        for key, end in last.items()
        for packet in track.packets[key : end + 1]
    )


def _look(
    decoder: VideoCodecContext, track: _Track, plan: _Plan, settings: FrameSettings, budget: Budget
) -> tuple[list[tuple[int, VideoFrame]], VideoFrame]:
    """(start in ms, frame) of the chosen ones among the planned frames, and the first frame as decoded."""
    indices = list(plan.weights)
    sampler: Sampler[tuple[int, VideoFrame]] = Sampler(
        list(plan.weights.values()), settings.max_frames, assured=plan.assured, seed=plan.seed
    )
    first: VideoFrame | None = None
    latest: VideoFrame | None = None
    decoded = 0
    for index, frame in zip(indices, _decoded(decoder, track, indices, budget), strict=True):
        if frame is not None and frame is not latest:
            latest = frame
            decoded += 1
        if latest is None:
            break
        first = first or latest
        at_ms = track.ends[index] - track.durations[index]
        sampler.see(_mark(latest), functools.partial(_kept, at_ms, latest, settings.size, plan.complete))
    if first is None or 2 * decoded < len(indices):
        raise _too_little(decoded, len(indices))
    return [kept for _, kept in sampler.chosen()], first


def _decoded(
    decoder: VideoCodecContext, track: _Track, indices: Sequence[int], budget: Budget
) -> Iterator[VideoFrame | None]:
    """For each of the shown frames `indices`, in order, that frame.

    Where it cannot be decoded it is the next that can; None when none is left.
    """
    wanted = {track.stamps[index] for index in indices}
    reached = -1
    frames: Iterator[tuple[int, VideoFrame]] = iter(())
    frame: VideoFrame | None = None
    for index in indices:
        stamp = track.stamps[index]
        key = track.key_before(track.packet_of[index])
        if reached < 0 or key > reached + 1:
            if reached >= 0:
                decoder.flush_buffers()
            frames = _decoded_from(decoder, track.packets, key, wanted)
            frame = None
        while frame is None or frame.pts is None or frame.pts < stamp:
            reached, frame = next(frames, (len(track.packets), None))
            if frame is None:
                break
            budget.check_time("decoding the video")
            budget.check_size(frame.width, frame.height)
        yield frame


def _decoded_from(
    decoder: VideoCodecContext, packets: list[Packet], first: int, wanted: Collection[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """(packet index reached, frame) from packet `first` to the end; no more than the `wanted` time stamps need."""
    for index in range(first, len(packets) + 1):
        packet = packets[index] if index < len(packets) else None
        if packet is not None:
            decoder.skip_frame = "DEFAULT" if _stamp(packet) in wanted else "NONREF"
        try:
            frames = decoder.decode(packet)
        except (av.error.InvalidDataError, av.error.EOFError):
            continue
        for frame in frames:
            yield index, frame


def _kept(at_ms: int, frame: VideoFrame, size: int, few: bool) -> tuple[int, VideoFrame]:
    """What waits to be chosen; shrunk where `few` is false or the frame is large, for memory is limited."""
    return at_ms, frame if few and frame.width * frame.height <= _LARGE else _small(frame, size)


def _too_little(decoded: int, wanted: int) -> Unreadable:
    """Some damage is shown by players and judged here; a video that is mostly illegible is not."""
    return Unreadable(UnreadableReason.DAMAGED, f"only {decoded} of {wanted} frames can be decoded")


def _mark(frame: VideoFrame) -> Signature:
    small = frame.reformat(64, 64, "rgb24", interpolation=Interpolation.AREA, threads=1)
    return signature(Image.fromarray(small.to_ndarray()))


def _small(frame: VideoFrame, size: int) -> VideoFrame:
    width, height = fit(frame.width, frame.height, size)
    kind = "rgba" if frame.format.name.startswith(("yuva", "rgba")) else "rgb24"
    return frame.reformat(width, height, kind, interpolation=Interpolation.AREA, threads=1)


def _picture(frame: VideoFrame, size: int, degrees: int) -> Image.Image:
    """The frame as a small RGB picture, turned anticlockwise by `degrees`, alpha over the backdrop."""
    image = shrink(Image.fromarray(_small(frame, size).to_ndarray()), size)
    turn = _TURNS.get(round(degrees / 90) % 4)
    return image if turn is None else image.transpose(turn)
