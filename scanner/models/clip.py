"""CLIP and SigLIP checkpoints, through transformers: pictures and texts as vectors in one space.

Only the image tower stays in memory. The text tower is loaded from the same verified files when a policy's concepts
are made ready, always in fp32 on the CPU, so that text features do not depend on the device, and dropped again.
transformers gets a folder of ours and is told to stay there: no network, no pickles, no code from a checkpoint.
"""

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import structlog
import torch
from PIL import Image
from torch.nn import functional

# Read when transformers is imported: what runs beside people's uploads asks nobody, and reports to nobody.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
import transformers

from scanner.models.device import Device
from scanner.models.model import Features, ModelBroken, ModelError, Prepared
from scanner.models.onnx_session import usable_cores
from scanner.models.pixels import read_preprocessing, upload
from scanner.models.registry import Checkpoint

Precision = Literal["auto", "fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_OFFLINE = {"local_files_only": True, "trust_remote_code": False}
_MOST_AT_ONCE = 256

log = structlog.get_logger("scanner.models.clip")


class CheckpointUnusable(ModelError):
    """A checkpoint that is as registered cannot be run here; the message says why."""


class TextTooLong(ModelError):
    """A text has more tokens than the model reads."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How transformers spells the two towers of one family, and how it pads texts."""

    vision: type[Any]
    text: type[Any]
    features: tuple[str, str]
    pads_to_full_length: bool


_KINDS = {
    "clip": _Kind(
        transformers.CLIPVisionModelWithProjection,
        transformers.CLIPTextModelWithProjection,
        ("image_embeds", "text_embeds"),
        pads_to_full_length=False,
    ),
    # What Google calls SigLIP 2 is of this type, but for the NaFlex checkpoints.
    "siglip": _Kind(
        transformers.SiglipVisionModel,
        transformers.SiglipTextModel,
        ("pooler_output", "pooler_output"),
        pads_to_full_length=True,
    ),
}


class Clip:
    """A checkpoint's image tower on one device; see `scanner.models.model.Embedder`.

    `prepare` resizes with Pillow for the CPU; for CUDA it leaves that to the device (`resize_on_device`).
    Raises `CheckpointUnusable`, `ModelDamaged` when files change under our hands, `ModelError` for a device that is
    not there, `ModelBroken` for one that fails or is full.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: Device = "cpu",
        precision: Precision = "auto",
        threads: int = 0,
        resize_on_device: bool | None = None,
    ) -> None:
        self.name = checkpoint.entry.name
        self.id = checkpoint.entry.model_id
        self._checkpoint = checkpoint
        self._device = _choose_device(self.name, device)
        self.device = self._device.type
        self._kind = self._read_kind()
        self._dtype = _choose_dtype(precision, self._device, self._kind)
        self._resize_on_device = self._device.type == "cuda" if resize_on_device is None else resize_on_device
        self._preprocessing = read_preprocessing(checkpoint.folder / "preprocessor_config.json")
        torch.set_num_threads(threads or usable_cores())
        self._at_most = _MOST_AT_ONCE
        tower = self._load(self._kind.vision, self._dtype)
        checkpoint.check_untouched()
        try:
            self._tower = tower.to(self._device, memory_format=torch.channels_last)
            self.dimensions = self._embed([np.zeros((*self._preprocessing.size, 3), np.uint8)]).shape[1]
        except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
            raise ModelBroken(f"model {self.name!r} does not come to run on {self._device}: {error}") from error
        except Exception as error:
            raise self._unusable("it so that a picture passes", error) from error
        log.info(
            "model_loaded",
            model=self.name,
            device=str(self._device),
            precision=str(self._dtype).removeprefix("torch."),
            dimensions=self.dimensions,
        )

    @property
    def device_memory(self) -> tuple[str, int, int] | None:
        """The device's name, and the bytes of its memory in use (by anybody) and in all; None on a CPU."""
        if self._device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(self._device)
        return str(self._device), total - free, total

    def prepare(self, image: Image.Image) -> Prepared:
        """Return uint8 [height, width, 3]: resized and cropped, or whole where the device resizes."""
        middle = self._preprocessing.middle(image)
        return np.asarray(middle) if self._resize_on_device else self._preprocessing.with_pillow(middle)

    def embed(self, batch: Sequence[Prepared]) -> Features:
        """Return unit vectors. Where memory does not suffice, the batch is halved, from then on.

        Raises torch.OutOfMemoryError when there is no room for one picture.
        """
        parts: list[Features] = []
        done = 0
        while done < len(batch):
            part = batch[done : done + self._at_most]
            try:
                parts.append(self._embed(part))
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise
                self._at_most = len(part) // 2
                log.warning(
                    "out_of_memory", model=self.name, at_most=self._at_most, error=str(error).partition("\n")[0]
                )
            else:
                done += len(part)
                continue
            self._free_memory()  # here, where the error no longer holds the failed batch
        return np.concatenate(parts)

    def embed_texts(self, texts: Sequence[str]) -> Features:
        """Return unit vectors of texts. Loads the text tower for it: seconds. Raises `TextTooLong` and as above."""
        tokenizer = self._load_tokenizer()
        tower = self._load(self._kind.text, torch.float32)
        longest = int(tower.config.max_position_embeddings)
        rows = []
        for text in texts:  # one by one: what one is padded to must not depend on the others
            tokens = tokenizer(text).input_ids
            if len(tokens) > longest:
                raise TextTooLong(
                    f"model {self.name!r} reads {longest} tokens, and this text has {len(tokens)}; shorten it: {text!r}"
                )
            padded = tokenizer(text, return_tensors="pt", **self._padding(longest))
            with torch.inference_mode():
                found = getattr(tower(**padded), self._kind.features[1])
                rows.append(functional.normalize(found.float(), dim=-1).numpy())
        self._checkpoint.check_untouched()
        return np.concatenate(rows)

    def _padding(self, longest: int) -> dict[str, Any]:
        return {"padding": "max_length", "max_length": longest} if self._kind.pads_to_full_length else {}

    def _embed(self, batch: Sequence[Prepared]) -> Features:
        with torch.inference_mode():
            if self._resize_on_device:
                pixels = self._preprocessing.with_tensors(batch, self._device)
            else:
                pixels = upload(np.stack(batch), self._device).permute(0, 3, 1, 2)
            found = self._tower(pixel_values=self._preprocessing.normalise(pixels, self._dtype))
            vectors = functional.normalize(getattr(found, self._kind.features[0]).float(), dim=-1)
            result: Features = vectors.cpu().numpy()
        return result

    def _free_memory(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _read_kind(self) -> _Kind:
        try:
            config = transformers.AutoConfig.from_pretrained(self._checkpoint.folder, **_OFFLINE)
        except Exception as error:
            raise self._unusable("its config.json", error) from error
        if config.model_type not in _KINDS:
            raise CheckpointUnusable(
                f"model {self.name!r} is of type {config.model_type!r}; this release runs {' and '.join(_KINDS)} "
                "(SigLIP 2 with a fixed resolution is of type siglip; its NaFlex variants are not supported)"
            )
        return _KINDS[config.model_type]

    def _load(self, tower: type[Any], dtype: torch.dtype) -> torch.nn.Module:
        try:
            with _Quiet():
                loaded, report = tower.from_pretrained(
                    self._checkpoint.folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **_OFFLINE
                )
        except Exception as error:
            raise self._unusable("its weights", error) from error
        if missing := sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"])):
            raise CheckpointUnusable(
                f"model {self.name!r}: model.safetensors lacks {len(missing)} of the weights that config.json "
                f"describes, such as {missing[0]}"
            )
        for weights in loaded.parameters():
            # Off the file's pages: what happens to the file later is none of the model's business.
            weights.data = weights.data.clone()
            weights.requires_grad_(False)
        module: torch.nn.Module = loaded.eval()
        return module

    def _load_tokenizer(self) -> Any:
        try:
            return transformers.AutoTokenizer.from_pretrained(self._checkpoint.folder, **_OFFLINE)
        except Exception as error:
            raise self._unusable("its tokenizer", error) from error

    def _unusable(self, part: str, error: Exception) -> CheckpointUnusable:
        return CheckpointUnusable(
            f"model {self.name!r}: transformers {transformers.__version__} cannot load {part} from "
            f"{self._checkpoint.folder}: {str(error) or type(error).__name__}"
        )


class _Quiet:
    """Keep transformers from printing tables of the other tower's weights, which we leave out on purpose."""

    def __enter__(self) -> None:
        self._verbosity = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers.logging.set_verbosity(self._verbosity)


def _choose_device(name: str, wanted: Device) -> torch.device:
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ModelError(
            f"model {name!r} cannot run on {wanted}: torch {torch.__version__} sees no CUDA device; "
            "check the driver (nvidia-smi), or use --device cpu"
        )
    device = torch.device("cuda:0" if wanted in ("auto", "cuda") else wanted)
    if device.index >= torch.cuda.device_count():
        raise ModelError(
            f"model {name!r} cannot run on {wanted}: there are {torch.cuda.device_count()} CUDA devices, from cuda:0"
        )
    return device


def _choose_dtype(precision: Precision, device: torch.device, kind: _Kind) -> torch.dtype:
    """Choose how weights are held: half precision where it is faster.

    CLIP was trained in fp16; SigLIP in bf16, whose range it may need. A CPU without instructions for bf16 imitates it,
    which is slower than fp32.
    """
    if precision != "auto":
        return _DTYPES[precision]
    if device.type == "cuda":
        return torch.float16 if kind is _KINDS["clip"] else torch.bfloat16
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
