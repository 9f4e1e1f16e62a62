"""What the registry knows of a model: its files, their checksums, and where they come from.

A classifier is one ONNX file; a checkpoint is a folder as transformers saves it. `ModelEntry.files` makes both alike.
"""

import hashlib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from scanner.models.model import model_id
from scanner.models.sources import HubSource, Source

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Sha256Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(gt=0)]

CHECKPOINT_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
"""What a checkpoint cannot do without, beside its tokenizer's files."""

CHECKPOINT_PREPROCESSING = "clip: rgb, as preprocessor_config.json says, 8:1 at most; unit vectors; 1"
"""Changes whenever a checkpoint would give other vectors (see `scanner.models.model.model_id`)."""

_FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*\.(safetensors|json|txt|model)$"
"""Weights as safetensors alone: a pickle (.bin, .pt, .pkl) can run code. A `.model` is a SentencePiece vocabulary."""


class WeightsFile(BaseModel):
    """One file of a model. `path` is its place in the models directory, `size` is in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    sha256: Sha256Hex
    size: Bytes
    sources: tuple[Source, ...]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ModelName
    licence: str
    description: str


class ClassifierEntry(_Entry):
    """A classifier of this release's (`scanner.models.loading.CLASSIFIERS`): one ONNX file."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.onnx$")]
    sha256: Sha256Hex
    size: Bytes
    source: Annotated[tuple[Source, ...], Field(min_length=1)]

    @property
    def files(self) -> tuple[WeightsFile, ...]:
        """Its one file."""
        return (WeightsFile(path=self.file, sha256=self.sha256, size=self.size, sources=self.source),)


class CheckpointFile(BaseModel):
    """One file of a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Annotated[str, Field(pattern=_FILE_NAME)]
    sha256: Sha256Hex
    size: Bytes


class CheckpointEntry(_Entry):
    """A CLIP or SigLIP checkpoint: a folder of the model's name, as transformers saves it.

    Without `repository` and `revision` its files are put there by hand.
    """

    repository: str | None = None
    revision: str | None = None
    checkpoint: Annotated[tuple[CheckpointFile, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _complete(self) -> "CheckpointEntry":
        if (self.repository is None) != (self.revision is None):
            raise ValueError("repository and revision go together: give both, or neither")
        self._source("config.json")  # checks both
        names = [file.name for file in self.checkpoint]
        if len(set(names)) != len(names):
            raise ValueError("a file is named twice")
        if missing := [name for name in CHECKPOINT_FILES if name not in names]:
            raise ValueError(f"a checkpoint needs {', '.join(missing)} as well")
        return self

    def _source(self, file: str) -> tuple[Source, ...]:
        if self.repository is None:
            return ()
        return (
            HubSource.model_validate(
                {"type": "hub", "repository": self.repository, "revision": self.revision, "path": file}
            ),
        )

    @property
    def files(self) -> tuple[WeightsFile, ...]:
        """Every file, in a folder of the model's name."""
        return tuple(
            WeightsFile(
                path=f"{self.name}/{file.name}", sha256=file.sha256, size=file.size, sources=self._source(file.name)
            )
            for file in self.checkpoint
        )

    @property
    def sha256(self) -> str:
        """Digest over the names and SHA-256s of all files, as ``sha256sum`` lists them, sorted by name."""
        lines = [f"{file.sha256}  {file.name}\n" for file in sorted(self.checkpoint, key=lambda file: file.name)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def model_id(self) -> str:
        """The id of the model that these files make."""
        return model_id(self.sha256, CHECKPOINT_PREPROCESSING)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.checkpoint)


def _kind_of(entry: Any) -> str:
    return "checkpoint-entry" if isinstance(entry, CheckpointEntry) or "checkpoint" in entry else "classifier-entry"


ENTRY_KINDS = frozenset({"checkpoint-entry", "classifier-entry"})
ModelEntry = Annotated[
    Annotated[ClassifierEntry, Tag("classifier-entry")] | Annotated[CheckpointEntry, Tag("checkpoint-entry")],
    Discriminator(_kind_of),
]
"""One model of the registry."""
