"""``settings``, ``metrics`` and ``version``."""

from typing import Annotated

import typer

from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.cli.tables import make_table, print_table


def settings(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    reference: Annotated[bool, typer.Option("--reference", help="Print the reference of docs/settings.md.")] = False,
) -> None:
    """Print the settings in force and where each comes from. Secrets are masked."""
    if reference:
        from fediwarden.reference.settings import settings_reference

        typer.echo(settings_reference(), nl=False)
        return
    in_force = read_settings(config)
    from fediwarden.settings import effective_settings

    rows = effective_settings(in_force)
    if as_json:
        import json

        typer.echo(json.dumps({row.name: {"value": row.value, "source": row.source} for row in rows}, indent=2))
        return
    from rich.text import Text

    table = make_table("setting", "value", "source")
    for row in rows:
        style = "dim" if row.source == "default" else "bold"
        table.add_row(Text(row.name, style), Text(row.value, style), Text(row.source, style))
    print_table(table)


def metrics() -> None:
    """Print the name, type, labels and meaning of every metric (docs/metrics.md)."""
    from fediwarden.metrics.reference import metrics_reference

    typer.echo(metrics_reference(), nl=False)


def version() -> None:
    """Print the versions of fediwarden, Python and the Kafka it embeds."""
    import platform
    from importlib.metadata import version as installed

    from fediwarden.kafka.jars import KAFKA_VERSION

    typer.echo(f"fediwarden {installed('fediwarden')}")
    typer.echo(f"Apache Kafka {KAFKA_VERSION} (embedded)")
    typer.echo(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
