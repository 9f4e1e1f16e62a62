"""Turning a checkpoint's folder into an entry for a registry of one's own.

The checksums are those of the files as they lie there: pinning says that they stay the same, not that they are good.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scanner.models.entries import CheckpointEntry
from scanner.models.model import ModelError

WANTED = re.compile(r"^(config|preprocessor_config)\.json$|^model\.safetensors$")
TOKENIZER = re.compile(
    r"^(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json$|^(merges|vocab)\.txt$"
    r"|^(spiece|tokenizer)\.model$"
)
VOCABULARIES = {"tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model"}


class CannotPin(ModelError):
    """A folder is no checkpoint that can be registered; the message says what is missing."""


def pin_checkpoint(
    folder: Path,
    *,
    name: str,
    licence: str,
    description: str,
    repository: str | None = None,
    revision: str | None = None,
) -> str:
    """Return the registry entry (TOML) of the checkpoint in `folder`; hashes its files. Raises `CannotPin`.

    Files that a checkpoint does not need, or that could run code, are left out: they must not lie in the folder that
    is loaded.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise CannotPin(f"{folder} cannot be read: {error.strerror}") from error
    wanted = [path for path in paths if WANTED.match(path.name) or TOKENIZER.match(path.name)]
    if VOCABULARIES.isdisjoint(path.name for path in wanted):
        raise CannotPin(f"{folder} has no tokenizer (such as tokenizer.json)")
    files = []
    for path in wanted:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files.append({"name": path.name, "sha256": digest, "size": path.stat().st_size})
    entry: dict[str, Any] = {"name": name, "licence": licence, "description": description, "checkpoint": files}
    if repository is not None or revision is not None:
        entry |= {"repository": repository, "revision": revision}
    try:
        return _as_toml(CheckpointEntry.model_validate(entry))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise CannotPin(f"{folder}: {f'{where}: ' if where else ''}{said}") from error


def _as_toml(entry: CheckpointEntry) -> str:
    fields = entry.model_dump(exclude={"checkpoint"}, exclude_none=True)
    # A JSON string without escapes beyond the basic plane is a TOML string.
    lines = ["[[model]]", *(f"{field} = {json.dumps(value, ensure_ascii=False)}" for field, value in fields.items())]
    for file in entry.checkpoint:
        lines += ["", "[[model.checkpoint]]", f'name = "{file.name}"', f'sha256 = "{file.sha256}"']
        lines.append(f"size = {file.size}")
    return "\n".join(lines) + "\n"
