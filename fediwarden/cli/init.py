"""``init`` and ``prepare``: what a fediwarden in containers begins with."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from fediwarden.cli.options import ConfigOption, DataDirOption, nested_flags, read_settings


def init(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where compose.yaml is.")] = Path(),
    domain: Annotated[str | None, typer.Option(help="`hostname` in Lemmy's settings, such as lemmy.example.")] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Only print what follows from the file that is there: the lines for pict-rs.")
    ] = False,
    rotate: Annotated[
        bool,
        typer.Option("--rotate", help="Give the file that is there new secrets. pict-rs needs its new line at once."),
    ] = False,
) -> None:
    """Write the file .env for compose.yaml, with new secrets (mode 0600), and say what to do next.

    A file that is there is never overwritten. What is printed holds the key that pict-rs gets.
    """
    from fediwarden import environment_file

    if show and rotate:
        raise typer.BadParameter("--show changes nothing, --rotate does: give one of them")
    if domain is not None and (show or rotate):
        raise typer.BadParameter("--domain is for a new file; in one that is there, edit the line")
    if show:
        path = folder / environment_file.NAME
    elif rotate:
        path = environment_file.rotate(folder)
        typer.echo(f"{path}: new secrets. Until pict-rs has the line below it is refused, and so is every upload:")
        for line in environment_file.lines_for_pict_rs(environment_file.read(folder)):
            typer.echo(f"  {line}")
        typer.echo("Change it there, then run, one right after the other:")
        typer.echo("  docker compose up --detach            # here")
        typer.echo("  docker compose up --detach pictrs     # in the folder of your Lemmy")
        return
    else:
        path = environment_file.make(folder, domain=domain)
        typer.echo(f"{path}: written, with new secrets; only you can read it")
    for line in environment_file.next_steps(path, environment_file.read(folder)):
        typer.echo(line)


def prepare(data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Make the key file, fetch the models, make the topics on a Kafka of your own: before services are started."""
    from fediwarden.logs import configure_logging
    from fediwarden.preparing import run_prepare

    settings = read_settings(config, nested_flags(data_dir=data_dir))
    configure_logging(settings.log, service="prepare")
    for line in asyncio.run(run_prepare(settings)):
        typer.echo(line)
