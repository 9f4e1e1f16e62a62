"""One file in, its frames out: what a worker process does with each job."""

from gateway.frames.budget import Budget
from gateway.frames.frame import FrameSet
from gateway.frames.images import extract_image
from gateway.frames.renditions import render
from gateway.frames.settings import FrameSettings
from gateway.frames.sniff import sniff
from gateway.frames.video import extract_video


def extract(data: bytes, settings: FrameSettings) -> FrameSet:
    """The frames of a whole file. Raises `Unreadable`; meant for a sandboxed process, for the bytes are hostile."""
    media_type = sniff(data)
    budget = Budget(settings)
    read = extract_video if media_type.startswith("video/") else extract_image
    footage = read(data, media_type, settings, budget)
    frames = render(footage.moments, settings)
    return FrameSet(media_type, footage.width, footage.height, footage.duration_ms, frames)
