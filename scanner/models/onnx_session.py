"""ONNX Runtime sessions, set up for a machine that has other work to do."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from scanner.models.device import Device
from scanner.models.model import ModelError

# From 1.32 on onnxruntime reports its use to its makers, and makes a device id for that as it is imported. What runs
# beside people's uploads reports to nobody.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

log = structlog.get_logger("scanner.models")


class OnnxSession:
    """One network with one input and one output that matters.

    `weights` are the bytes of the .onnx file, already verified. `threads` = 0 means one per usable core.
    Raises `ModelError` when the file cannot be loaded or the device is not there; ``auto`` falls back to the CPU.

    On a CPU all threads share the work of one picture when it comes alone, which answers soonest; of several, each
    thread takes one, which costs a quarter less: nobody waits for the slowest at every operator.
    """

    def __init__(self, name: str, weights: bytes, *, device: Device, threads: int) -> None:
        providers = _providers(device)
        threads = threads or usable_cores()
        try:
            self._session = onnxruntime.InferenceSession(weights, _options(threads), providers=providers)
        except Exception as error:
            raise ModelError(
                f"model {name!r} cannot be loaded by onnxruntime {onnxruntime.__version__}: {error}; "
                "reinstall onnxruntime, or choose other models with scanner.models"
            ) from error
        self.device = "cuda" if self._session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        if device.startswith("cuda") and self.device != "cuda":
            # onnxruntime falls back without a word when the CUDA libraries do not fit.
            raise ModelError(
                f"model {name!r} cannot run on CUDA: onnxruntime found the provider but could not start it; "
                "check the driver and the CUDA and cuDNN versions, or use --device cpu"
            )
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self._one_each: onnxruntime.InferenceSession | None = None
        if self.device == "cpu" and threads > 1:
            self._one_each = onnxruntime.InferenceSession(weights, _options(1), providers=providers)
            self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"onnx-{name}")
        log.info("model_loaded", model=name, device=self.device)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on one batch and return its first output."""
        if self._one_each is None or len(batch) == 1:
            return self._run(self._session, batch)
        each = partial(self._run, self._one_each)
        return np.concatenate(list(self._threads.map(each, np.split(batch, len(batch)))))

    def _run(self, session: Any, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        (output,) = session.run([self._output], {self._input: batch})
        return np.asarray(output, dtype=np.float32)


def _providers(device: Device) -> list[str | tuple[str, dict[str, str]]]:
    available = onnxruntime.get_available_providers()
    has_cuda = "CUDAExecutionProvider" in available
    if device.startswith("cuda") and not has_cuda:
        raise ModelError(
            f"--device {device}: this onnxruntime has no CUDA provider (it has {', '.join(available)}); "
            "install onnxruntime-gpu in place of onnxruntime, or use --device cpu"
        )
    if device != "cpu" and has_cuda:
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        number = device.partition(":")[2] or "0"
        return [("CUDAExecutionProvider", {"device_id": number}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Worker threads that spin between operators double the CPU time per image when anything else runs beside
    # them (measured on 2 cores: 32 ms spinning, 18 ms not).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
