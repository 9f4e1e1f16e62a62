"""``demo``: a week of an invented fediverse through the real pipeline, to understand what this is."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def demo(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="DIR",
            help="Directory of the demo's own. Default: demo in the data directory of your user; with --check a"
            " temporary one.",
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(metavar="N", min=150, max=100_000, help="How many images the week has, about. Default: 2,000."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Stop at the end; exit code 1 unless all came out as it has to.")
    ] = False,
) -> None:
    """Show what fediwarden does: a week of an invented fediverse, in minutes, and pages to look at it.

    Starts the real services with settings, data and ports of the demo's own. Nothing leaves this machine.
    """
    from fediwarden.demo.run import run_demo
    from fediwarden.logs import log_for_command

    log_for_command()
    if data_dir is None and not check:
        base = os.environ.get("XDG_DATA_HOME")
        data_dir = (Path(base) if base else Path.home() / ".local/share") / "fediwarden" / "demo"
    sys.exit(run_demo(data_dir, images, check=check))
