"""From a picture to a vision tower's pixel values, as a checkpoint's preprocessor_config.json says.

Two ways with one meaning: Pillow, in the decoding threads, to the bit what transformers' Pillow processors do; and
tensors, many pictures at once on the GPU. The second comes out up to one grey level different (float arithmetic in
place of Pillow's fixed point).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from scanner.models.model import ModelError

Pixels = NDArray[np.uint8]
"""Shape [height, width, 3], RGB."""

LONGEST = 8
_INTERPOLATIONS = {int(Image.Resampling.BILINEAR): "bilinear", int(Image.Resampling.BICUBIC): "bicubic"}


class PreprocessingUnknown(ModelError):
    """A preprocessor_config.json asks for what is not done here; the message names the field."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize (to `shortest`, keeping proportions, or to `exact` height and width), centre crop, scale, normalise."""

    shortest: int | None
    exact: tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: int
    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        size = self.crop or self.exact
        assert size is not None, "checked when read"
        return size

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a picture is resized to."""
        if self.exact is not None:
            return self.exact
        assert self.shortest is not None
        short, long = min(height, width), max(height, width)
        longer = int(self.shortest * long / short)
        return (self.shortest, longer) if height <= width else (longer, self.shortest)

    def middle(self, image: Image.Image) -> Image.Image:
        """Cut the ends off a picture that is more than `LONGEST` times as long as wide, where they do not count.

        A strip of one pixel would else grow to a hundred megabytes before the centre crop takes its middle.
        """
        short, long = min(image.size), max(image.size)
        if self.shortest is None or long <= LONGEST * short:
            return image
        width, height = min(image.width, LONGEST * short), min(image.height, LONGEST * short)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))

    def with_pillow(self, image: Image.Image) -> Pixels:
        """Resize and crop one RGB picture."""
        height, width = self.resized(image.height, image.width)
        resized = image.resize((width, height), Image.Resampling(self.resample))
        top, left = _offsets((height, width), self.size)
        return np.asarray(resized.crop((left, top, left + self.size[1], top + self.size[0])))

    def with_tensors(self, pictures: Sequence[Pixels], device: torch.device) -> torch.Tensor:
        """Resize and crop pictures of any sizes on `device`: float32, shape [n, 3, height, width], 0 to 255."""
        out = torch.empty((len(pictures), 3, *self.size), device=device, memory_format=torch.channels_last)
        for shape in dict.fromkeys(picture.shape for picture in pictures):
            places = [place for place, picture in enumerate(pictures) if picture.shape == shape]
            alike = upload(np.stack([pictures[place] for place in places]), device)
            wanted = self.resized(shape[0], shape[1])
            grown = functional.interpolate(
                alike.permute(0, 3, 1, 2).float(),
                size=wanted,
                mode=_INTERPOLATIONS[self.resample],
                antialias=True,
                align_corners=False,
            )
            top, left = _offsets(wanted, self.size)
            cut = grown[:, :, top : top + self.size[0], left : left + self.size[1]]
            out[places] = cut.round_().clamp_(0.0, 255.0)
        return out

    def normalise(self, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Scale and normalise what the ways above give, shape [n, 3, height, width], to `dtype`."""
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        deviation = torch.tensor(self.deviation, device=pixels.device).view(1, 3, 1, 1)
        normal = (pixels.float() * self.scale - mean) / deviation
        return normal.to(dtype=dtype, memory_format=torch.channels_last)


def upload(pixels: Pixels, device: torch.device) -> torch.Tensor:
    """Move an array to `device`, through pinned memory where that is faster."""
    tensor = torch.from_numpy(pixels)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


def read_preprocessing(file: Path) -> Preprocessing:
    """Read a preprocessor_config.json. Raises `PreprocessingUnknown` for what is not done here."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return _Reader(config, file).read()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PreprocessingUnknown(f"{file} is not a preprocessor_config.json: {error!r}") from error


class _Reader:
    def __init__(self, config: dict[str, Any], file: Path) -> None:
        self._config = config
        self._file = file

    def read(self) -> Preprocessing:
        config = self._config
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if not config.get(step, True):
                raise self._unknown(step, config[step])
        size = self._size("size")
        crops = bool(config.get("do_center_crop", "crop_size" in config))
        crop = self._size("crop_size") if crops else None
        if isinstance(crop, int):
            crop = (crop, crop)
        resample = config.get("resample", int(Image.Resampling.BICUBIC))
        if resample not in _INTERPOLATIONS:
            raise self._unknown("resample", resample)
        exact = size if isinstance(size, tuple) else None
        shortest = size if isinstance(size, int) else None
        if crop is None and exact is None:
            raise self._unknown("do_center_crop", False)
        resized = exact or (shortest, shortest)
        if crop is not None and (crop[0] > (resized[0] or 0) or crop[1] > (resized[1] or 0)):
            raise self._unknown("crop_size", config["crop_size"])
        return Preprocessing(
            shortest=shortest,
            exact=exact,
            crop=crop,
            resample=int(resample),
            scale=float(config.get("rescale_factor", 1 / 255)),
            mean=tuple(float(part) for part in config["image_mean"]),
            deviation=tuple(float(part) for part in config["image_std"]),
        )

    def _size(self, field: str) -> int | tuple[int, int]:
        """One number is the shortest edge: so the first CLIP checkpoints write it."""
        value = self._config[field]
        if isinstance(value, int):
            return value
        if "shortest_edge" in value and "longest_edge" not in value:
            return int(value["shortest_edge"])
        if "height" in value and "width" in value:
            return int(value["height"]), int(value["width"])
        raise self._unknown(field, value)

    def _unknown(self, field: str, value: object) -> PreprocessingUnknown:
        return PreprocessingUnknown(f"{self._file}: {field} = {value!r} is nothing this release can do")


def _offsets(size: tuple[int, int], crop: tuple[int, int]) -> tuple[int, int]:
    return (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
