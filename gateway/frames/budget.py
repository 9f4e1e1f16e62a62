"""How much one file may ask for: time and pixels."""

import time

from gateway.frames.frame import Unreadable, UnreadableReason
from gateway.frames.settings import FrameSettings

_SHARE_OF_WALL = 0.8


class Budget:
    """The limits of one file. The clock starts when it is made.

    The time is four fifths of `wall_s`: an honest slow file is refused by the worker itself; the kill at `wall_s`
    is for decoders that hang.
    """

    def __init__(self, settings: FrameSettings) -> None:
        self._settings = settings
        self._end = time.monotonic() + _SHARE_OF_WALL * settings.wall_s

    def check_time(self, doing: str) -> None:
        """Raises `Unreadable` (too_slow) when the time is used up.

        What lies beyond cannot be vouched for, so a file that cannot be looked through to its end is refused
        rather than judged by its beginning.
        """
        if time.monotonic() > self._end:
            raise Unreadable(UnreadableReason.TOO_SLOW, f"out of time while {doing}")

    def check_size(self, width: int, height: int) -> None:
        """Raises `Unreadable` (too_large, damaged) for a size in pixels beyond the settings' limits."""
        side, pixels = self._settings.max_side, self._settings.max_pixels
        if width < 1 or height < 1:
            raise Unreadable(UnreadableReason.DAMAGED, f"a size of {width} x {height} pixels is none")
        if max(width, height) > side or width * height > pixels:
            raise Unreadable(
                UnreadableReason.TOO_LARGE,
                f"{width} x {height} pixels; at most {side} a side and {pixels / 1e6:g} million in all",
            )
