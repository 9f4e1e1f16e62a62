"""A real scanner with a model of the fault tests': it judges by colour, and breaks when a file says so.

    python -m tests.faults.scanner --control FILE      # settings from the environment, as `fediwarden scanner`

Red pictures are rejected. Each frame costs `FRAME_S`. What stands in FILE, a `Behaviour`, is looked up at every batch.
"""

import argparse
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image

from bench.pause import serve
from scanner.models.model import Prepared, Probabilities
from scanner.policy import AtLeast, Policy, Rule
from schemas.messages import Decision

FRAME_S = 0.01
POISON_BLUE = 0.5
"""A frame whose blue part is at least this makes the model raise, whatever the file says."""

RED = Policy(
    name="fault-tests",
    description="Rejects what is mostly red.",
    rules=(Rule("red", "Mostly red.", Decision.REJECT, AtLeast("colour/red", 0.5)),),
)


class Behaviour(StrEnum):
    """What the model does with every batch."""

    OK = "ok"
    RAISE = "raise"
    NAN = "nan"
    HANG = "hang"
    """From the second call on: a device that lets a scanner start, and then does not come back."""


class ColourModel:
    """Scores a frame by its mean red, from 0 to 1."""

    name = "colour"
    labels = ("red",)
    device = "cpu"
    id = "fault-tests-1"

    def __init__(self, control: Path) -> None:
        self._control = control
        self._started = False

    def prepare(self, image: Image.Image) -> Prepared:
        """Mean red, green and blue, from 0 to 1."""
        return np.asarray(image.convert("RGB"), dtype=np.float32).mean(axis=(0, 1)) / 255.0

    def infer(self, batch: Sequence[Prepared]) -> Probabilities:
        """The reds, or what the control file asks for."""
        behaviour = Behaviour(self._control.read_text().strip())
        if behaviour is Behaviour.RAISE:
            raise RuntimeError("the device is gone, says the fault test")
        if behaviour is Behaviour.HANG and self._started:
            while True:  # no switch ends this: a driver that hangs does not come back either
                time.sleep(3600)
        self._started = True
        colours = np.stack(batch)
        time.sleep(FRAME_S * len(batch))
        if behaviour is Behaviour.NAN:
            return np.full((len(batch), 1), np.nan, dtype=np.float32)
        if (colours[:, 2] >= POISON_BLUE).any():
            raise ValueError("a picture that this model cannot bear")
        return colours[:, :1]


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--control", type=Path, required=True)
    serve(ColourModel(parser.parse_args().control), RED)


if __name__ == "__main__":
    main()
