"""Settings from files, one a value, as Docker, Kubernetes and systemd hand secrets to a process.

The folder is the one that ``FEDIWARDEN_SECRETS_DIR`` names. A file in it is called like the setting's variable, such as
``FEDIWARDEN_KAFKA__SASL_PASSWORD`` (in any case), and holds its value; white space round it is left out. Files of
other names are others' and are not read.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic_settings import BaseSettings, EnvSettingsSource

SECRETS_VARIABLE: Final = "FEDIWARDEN_SECRETS_DIR"


class SecretFilesError(Exception):
    """The folder or one of its files cannot be used; the message names it and the remedy, never what is in it."""


def find_secret_files(prefix: str) -> Mapping[str, Path]:
    """The files of settings, by their names in capitals; none where no folder is named. Raises `SecretFilesError`."""
    named = os.environ.get(SECRETS_VARIABLE)
    if not named:
        return {}
    folder = Path(named).expanduser()
    try:
        files = sorted(file for file in folder.iterdir() if file.name.upper().startswith(prefix))
    except OSError as error:
        raise SecretFilesError(
            f"the folder {folder}, which {SECRETS_VARIABLE} names, cannot be read: {error.strerror}"
        ) from error
    found: dict[str, Path] = {}
    for file in files:
        if file.name.upper() in found:
            raise SecretFilesError(f"{file} and {found[file.name.upper()]} are the same setting: remove one")
        found[file.name.upper()] = file
    return found


def read_secret_file(file: Path) -> str:
    """The value in it. Raises `SecretFilesError`."""
    try:
        value = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SecretFilesError(f"{file} cannot be read: {error.strerror}; give this user the right to") from error
    except UnicodeDecodeError:
        # Not as a cause: it carries what is in the file.
        raise SecretFilesError(f"{file} is not text (UTF-8): write the value alone into it") from None
    if not value:
        raise SecretFilesError(f"{file} is empty: write the value into it, or remove it")
    return value


def secret_files_source(settings: type[BaseSettings], prefix: str) -> EnvSettingsSource:
    """Those values, read by pydantic-settings' rules for variables. (Its own source of secrets reads every file there
    is, fails at one that is not text, and passes over links that lead elsewhere.) Raises `SecretFilesError`."""
    source = EnvSettingsSource(settings)
    source.env_vars = {name.lower(): read_secret_file(file) for name, file in find_secret_files(prefix).items()}
    return source
