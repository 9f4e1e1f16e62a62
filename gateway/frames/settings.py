"""Settings of frame extraction."""

import os

from pydantic import BaseModel, ConfigDict, Field

from schemas.topics import FRAMES_MAX_BYTES


class FrameSettings(BaseModel):
    """How files are turned into frames, and what a worker process may use up doing so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(
        default_factory=lambda: max(2, len(os.sched_getaffinity(0))),
        ge=1,
        le=256,
        description="Sandboxed worker processes; by default one a core, at least two.",
    )
    wall_s: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="Seconds one file may take in a worker before the worker is killed and replaced.",
    )
    memory_mb: int = Field(
        default=1536, ge=384, description="Address space of one worker in MiB; more than that is refused."
    )
    max_side: int = Field(
        default=10_000, ge=1, description="Longest side in pixels; larger files are refused by their header."
    )
    max_pixels: int = Field(
        default=40_000_000, ge=1, description="Most pixels of one frame; larger files are refused by their header."
    )
    max_frames: int = Field(default=8, ge=1, le=8, description="Most frames taken of an animation or a video.")
    size: int = Field(
        default=512, ge=64, le=2048, description="Longest side of a frame in pixels; smaller pictures stay as they are."
    )
    jpeg_quality: int = Field(
        default=85, ge=20, le=95, description="JPEG quality of a frame, before it steps down to fit max_bytes."
    )
    max_bytes: int = Field(
        default=FRAMES_MAX_BYTES,
        ge=50_000,
        le=FRAMES_MAX_BYTES,
        description="Most bytes of all frames of one file together; a Kafka record holds no more.",
    )
    jobs_per_worker: int = Field(
        default=5_000, ge=1, description="Files a worker process reads before a fresh one takes its place."
    )
    recycle_mb: int = Field(
        default=512, ge=128, description="Resident memory in MiB above which an idle worker is replaced."
    )
