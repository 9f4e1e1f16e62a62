"""The scanner's settings."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from scanner.models.device import Device
from schemas.messages import TenantName

SHADOW_SUFFIX = "-shadow"


class ScannerSettings(BaseModel):
    """What a scanner judges with, and how much at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Device = Field(
        "auto",
        description="Where models run: cpu, cuda, or one GPU of several as cuda:1; auto takes CUDA when it is there,"
        " else the CPU.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="How CLIP models compute; auto takes fp16 (SigLIP: bf16) on CUDA, and bf16 on a CPU that has"
        " instructions for it, else fp32. A score moves by a few thousandths.",
    )
    models: tuple[str, ...] = Field(
        ("safety-s", "open-nsfw"),
        min_length=1,
        description="Which models score each frame, by name; unless others are promoted (`fediwarden models promote`).",
    )
    models_dir: Path | None = Field(
        None,
        description="Folder that holds the models' weights, filled by `fediwarden models fetch`;"
        " the folder models in the cache directory when unset.",
    )
    registry: Path | None = Field(
        None, description="Registry file (TOML) with CLIP checkpoints of your own; see docs/models.md."
    )
    policy: Path | None = Field(
        None,
        description="What turns scores into a decision: a policy file (TOML), or the name of a policy that comes with"
        " fediwarden (`default-cpu`, `default-clip`, `horde-parity`, `strict`, `observe`); `default-cpu` when unset. A"
        " file that changes is taken up without a restart.",
    )
    policies: dict[TenantName, Path] = Field(
        default_factory=dict,
        description="Policies of tenants that have one of their own, by tenant: files or names, as for `policy`."
        " Default: none.",
    )
    batch: int = Field(
        0,
        ge=0,
        le=256,
        description="Most frames that are scored at a time; 0 chooses: two per core on the CPU (8 at most),"
        " 32 on CUDA, and for CLIP models what is fastest when tried at start. A fresh image waits at most max_wait_ms"
        " for others, and for the batch that is being scored.",
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
        description="Most images read from the live lane and not yet answered, per scanner; 0 chooses: 4 per frame of a"
        " batch, at least 16. Of the backlog it takes a few at a time: 2 per frame of a batch, or 5 % of this.",
    )
    threads: int = Field(0, ge=0, le=256, description="Threads that inference may use; 0 means one per core.")
    decode_threads: int = Field(2, ge=1, le=64, description="Images decrypted and decoded at a time.")
    hang_s: float = Field(
        60.0,
        gt=0.0,
        le=3600.0,
        description="Seconds that scoring one batch, or decoding one image, may take; a scanner where either takes"
        " longer ends itself, to be started again.",
    )
    archive: bool = Field(
        True, description="Whether the (encrypted) frames of images that are kept go to images.archive, for replay."
    )
    features: bool = Field(
        True,
        description="Whether the feature vectors that CLIP models give go to the topic features, so that a policy with"
        " new concepts can judge again without the image.",
    )
    group: Annotated[str, Field(min_length=1, max_length=100)] = Field(
        "fediwarden-scanner", description="Kafka consumer group; scanners of one group share the work."
    )
    shadow: bool = Field(
        False,
        description="Only say what this scanner's models and policy would have decided, in the topic verdicts.shadow"
        " (`fediwarden shadow report` compares): a group of its own, the name in `group` with -shadow, reads every"
        " image once more. Nothing is answered, archived, moved or declared dead by it.",
    )
    rescans: bool = Field(
        True,
        description="Whether this scanner also works on rescans that look at archived frames again (docs/replay.md),"
        " while it has nothing else in hand. A shadow never does.",
    )
    instance: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[a-zA-Z0-9._-]+$")] | None = Field(
        None,
        description="A name that no other scanner of the group has (Kafka's static membership): one that is started"
        " again within session_timeout_s has its partitions back at once. `fediwarden up` names its scanners itself."
        " Unset, a scanner that stops gives its partitions to the others at once.",
    )
    session_timeout_s: float = Field(
        6.0,
        ge=1.0,
        le=300.0,
        description="Seconds without a sign of life after which Kafka gives a scanner's partitions to others. The"
        " brokers' group.min.session.timeout.ms (6 s where nobody changed it, 1 s in the embedded Kafka) is the least.",
    )
    announce_s: float = Field(
        5.0, gt=0.0, le=300.0, description="Seconds between a scanner's announcements of what it judges with."
    )
    stop_s: float = Field(
        10.0, ge=0.0, le=300.0, description="Seconds that work in hand gets at a stop; the rest is handed back."
    )

    @property
    def group_in_force(self) -> str:
        """The consumer group that this scanner is a member of."""
        return self.group + (SHADOW_SUFFIX if self.shadow else "")
