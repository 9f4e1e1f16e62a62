"""The scanner's settings."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class ScannerSettings(BaseModel):
    """What a scanner judges with, and how much at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where models run; auto takes CUDA when onnxruntime has it, else the CPU."
    )
    models: tuple[str, ...] = Field(
        ("safety-s", "open-nsfw"), min_length=1, description="Which models score each frame, by name."
    )
    models_dir: Path | None = Field(
        None,
        description="Folder that holds the models' weights, filled by `fediwarden models fetch`;"
        " the folder models in the cache directory when unset.",
    )
    policy: Path | None = Field(
        None, description="Policy file (TOML) that turns scores into a decision; our default for the CPU when unset."
    )
    batch: int = Field(
        0,
        ge=0,
        le=256,
        description="Most frames that are scored at a time; 0 chooses: one per two cores on the CPU (8 at most),"
        " 32 on CUDA. On few cores a batch is no faster than its frames one by one, and all of it is late.",
    )
    max_wait_ms: float = Field(
        5.0,
        ge=0.0,
        le=1000.0,
        description="Longest wait for a fuller batch, in milliseconds, while another image is being decoded.",
    )
    in_flight: int = Field(
        0,
        ge=0,
        le=1024,
        description="Most images read from Kafka and not yet answered, per scanner; 0 chooses: 4 per frame of a batch,"
        " at least 16.",
    )
    threads: int = Field(0, ge=0, le=256, description="Threads that inference may use; 0 means one per core.")
    decode_threads: int = Field(2, ge=1, le=64, description="Images decrypted and decoded at a time.")
    archive: bool = Field(
        True, description="Whether the (encrypted) frames of images that are kept go to images.archive, for replay."
    )
    group: Annotated[str, Field(min_length=1, max_length=100)] = Field(
        "fediwarden-scanner", description="Kafka consumer group; scanners of one group share the work."
    )
    announce_s: float = Field(
        5.0, gt=0.0, le=300.0, description="Seconds between a scanner's announcements of what it judges with."
    )
    stop_s: float = Field(
        10.0, ge=0.0, le=300.0, description="Seconds that work in hand gets at a stop; the rest is handed back."
    )
