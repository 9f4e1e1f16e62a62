"""What several commands share: their options, and how flags become settings."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fediwarden.settings import Settings

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file. Default: FEDIWARDEN_CONFIG, ./fediwarden.toml, or the one in the data directory.",
    ),
]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="Directory for what must be kept (setting data_dir).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def nested_flags(**flags: Any) -> dict[str, Any]:
    """Flags as settings: ``gateway__port=1`` becomes ``{"gateway": {"port": 1}}``; None means not given."""
    nested: dict[str, Any] = {}
    for name, value in flags.items():
        if value is None:
            continue
        section, _, key = name.rpartition("__")
        (nested.setdefault(section, {}) if section else nested)[key] = value
    return nested


def read_settings(config: Path | None, flags: dict[str, Any] | None = None) -> "Settings":
    """The settings in force, with logging as commands need it; services set up theirs afterwards.

    Raises `fediwarden.settings.SettingsError`.
    """
    from fediwarden.logs import log_for_command
    from fediwarden.settings import CONFIG_VARIABLE, load_settings

    log_for_command()
    if config is not None:
        # By the environment, so that the processes `up` starts read the same file.
        os.environ[CONFIG_VARIABLE] = str(config.absolute())
    return load_settings(flags)
