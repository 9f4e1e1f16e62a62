"""When Python looks for garbage, and what of it goes back to the system."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for garbage in here: for what makes very many objects that live as long as it does, none of them in a
    cycle. Looking through them again and again takes a fifth of a recorder's time, half of that of reading a page."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def settle() -> None:
    """After something large has been made that stays, such as an assessment: looks for garbage once, and not among what
    is there now until the next call, as a search takes a sixth of a second of whatever request it falls into; hands
    the memory that is free to the system, as glibc keeps what large arrays leave, a hundred megabytes."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # others than glibc have none
    if trim is not None:
        trim(0)
