"""A scanner whose model only sleeps: what a run with it costs beyond the sleep is what fediwarden itself costs.

    python -m bench.pause --pause-ms 30        # settings from the environment, as `python -m fediwarden scanner`

`bench.serve` starts as many of these as it is asked for.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
import uvloop
from PIL import Image

from scanner.models.model import Model, Prepared, Probabilities
from scanner.policy import AtLeast, Policy, Rule
from schemas.messages import Decision

NEVER = Policy(
    name="bench-pause",
    description="Accepts everything: the pausing model scores 0.",
    rules=(Rule("never", "Never fires.", Decision.REJECT, AtLeast("pause/nothing", 0.5)),),
)


class PauseModel:
    """Sleeps `pause_ms` for each frame it is given, and finds nothing in it.

    A still has one frame, so this is the pause an image; a batch sleeps for its frames one after another, because a
    batch shall not make the pause cheaper.
    """

    name = "pause"
    labels = ("nothing",)
    device = "cpu"

    def __init__(self, pause_ms: float) -> None:
        self._pause_s = pause_ms / 1000.0
        self.id = f"pause-{pause_ms:g}ms"

    def prepare(self, image: Image.Image) -> Prepared:
        """Nothing of the picture is looked at; it has been decoded by now."""
        return np.zeros((1,), dtype=np.float32)

    def infer(self, batch: Sequence[Prepared]) -> Probabilities:
        """Sleep, then answer 0 for each frame."""
        time.sleep(self._pause_s * len(batch))  # what stands for a model's work: the one thing it does
        return np.zeros((len(batch), 1), dtype=np.float32)


def serve(model: Model, policy: Policy) -> None:
    """Be a scanner with this model alone until SIGTERM; its settings come from the environment."""
    from fediwarden.logs import configure_logging
    from fediwarden.settings import load_settings
    from scanner.service import run_scanner
    from schemas.keyring import Keyring

    settings = load_settings()
    configure_logging(settings.log, service="scanner")
    broker, keyring = settings.kafka.broker_settings(), Keyring.load(settings.keys_file)
    uvloop.run(run_scanner(settings.scanner, broker, keyring, models=[model], policy=policy))


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pause-ms", type=float, required=True)
    serve(PauseModel(parser.parse_args().pause_ms), NEVER)


if __name__ == "__main__":
    main()
