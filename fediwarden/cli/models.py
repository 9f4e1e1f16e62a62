"""``models``: the weights that scanners judge with."""

from pathlib import Path
from typing import Annotated

import typer

from fediwarden.cli import models_promotion
from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.cli.tables import make_table, print_table
from fediwarden.exits import FAILED

app = typer.Typer(
    help="Model weights: list, fetch, verify; promote a model while scanners judge.", no_args_is_help=True
)
models_promotion.add_commands(app)

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Models; those of the setting scanner.models if none.")
]


@app.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the models of the registry and say which are here."""
    from scanner.models.registry import load_registry, state

    settings = read_settings(config)
    rows = [
        {
            "name": entry.name,
            "state": str(state(entry, settings.models_dir)),
            "used": entry.name in settings.scanner.models,
            "size": entry.size,
            "licence": entry.licence,
            "description": entry.description,
            "sha256": entry.sha256,
            "sources": list(dict.fromkeys(str(source) for file in entry.files for source in file.sources)),
        }
        for entry in load_registry(settings.scanner.registry).model
    ]
    if as_json:
        import json

        typer.echo(json.dumps(rows, indent=2))
        return
    table = make_table("model", "state", "used", "size", "licence", "what it does")
    for row in rows:
        table.add_row(
            str(row["name"]),
            str(row["state"]),
            "yes" if row["used"] else "",
            f"{int(str(row['size'])) / 1e6:.1f} MB",
            str(row["licence"]),
            str(row["description"]),
        )
    print_table(table)


@app.command("fetch")
def fetch(names: Names = None, config: ConfigOption = None) -> None:
    """Download and verify model weights. What is here and right is left alone."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from scanner.models import registry as models

    settings = read_settings(config)
    wanted = names or list(settings.scanner.models)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("models", total=None)
        paths = models.fetch(
            models.load_registry(settings.scanner.registry),
            wanted,
            settings.models_dir,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    for name, path in zip(wanted, paths, strict=True):
        typer.echo(f"{name}: {path}")


@app.command("verify")
def verify(names: Names = None, config: ConfigOption = None) -> None:
    """Check the weights that are here against the registry. Exit code 1 when one is missing or wrong."""
    from scanner.models import registry as models

    settings = read_settings(config)
    registry = models.load_registry(settings.scanner.registry)
    faults = 0
    for name in names or settings.scanner.models:
        try:
            models.verify(registry.entry(name), settings.models_dir)
            typer.echo(f"{name}: ok")
        except (models.ModelMissing, models.ModelDamaged) as error:
            faults += 1
            typer.secho(f"{name}: {error}", fg=typer.colors.RED)
    if faults:
        raise typer.Exit(FAILED)


@app.command("pin")
def pin(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A checkpoint as transformers saves it.")],
    name: Annotated[str, typer.Option(help="What policies shall call the model, such as siglip2-base.")],
    licence: Annotated[str, typer.Option(help="The licence of the weights.")] = "unknown",
    description: Annotated[str, typer.Option(help="What it is, for `models list`.")] = "",
    repository: Annotated[str | None, typer.Option(help="Where others can fetch it: hub repository.")] = None,
    revision: Annotated[str | None, typer.Option(help="The commit there, 40 hex digits.")] = None,
) -> None:
    """Print a registry entry for a CLIP or SigLIP checkpoint of your own: append it to the file scanner.registry.

    The checksums say that the files stay as they are, not that they are good: look at where you got them.
    """
    from scanner.models.pinning import pin_checkpoint

    entry = pin_checkpoint(
        folder, name=name, licence=licence, description=description, repository=repository, revision=revision
    )
    typer.echo(entry, nl=False)
