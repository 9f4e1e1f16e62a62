"""The command line: `main` is the console script ``fediwarden``.

Commands import what they need when they run, so that help and completion answer at once.
"""

import os
import sys

import typer

from fediwarden.cli import (
    audit,
    demo,
    doctor,
    init,
    kafka,
    keys,
    ledger,
    lists,
    models,
    moving,
    overrides,
    policy,
    replay,
    rescan,
    scan,
    services,
    settings,
    shadow,
    sweep,
    topics,
    users,
)
from fediwarden.exits import FAILED, exit_code, is_ours

app = typer.Typer(
    name="fediwarden",
    help="Judges every image before a fediverse server keeps it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("up")(services.up)
app.command("init")(init.init)
app.command("prepare")(init.prepare)
app.command("demo")(demo.demo)
app.command("gateway")(services.gateway)
app.command("scanner")(services.scanner)
app.command("enforcer")(services.enforcer)
app.command("relay")(services.relay)
app.command("lemmy")(services.lemmy)
app.command("scan")(scan.scan)
app.command("sweep")(sweep.sweep)
app.command("ledger")(ledger.ledger)
app.add_typer(audit.app, name="audit")
app.add_typer(overrides.app, name="overrides")
app.add_typer(shadow.app, name="shadow")
app.add_typer(topics.app, name="topics")
app.add_typer(models.app, name="models")
app.add_typer(policy.app, name="policy")
app.add_typer(rescan.app, name="rescan")
app.add_typer(moving.app, name="export")
app.command("import")(moving.import_)
app.command("replay")(replay.replay)
app.add_typer(kafka.app, name="kafka")
app.add_typer(keys.app, name="keys")
app.add_typer(lists.app, name="lists")
app.add_typer(users.app, name="users")
app.command("doctor")(doctor.doctor)
app.command("settings")(settings.settings)
app.command("metrics")(settings.metrics)
app.command("version")(settings.version)


def main() -> None:
    """Run the command that sys.argv names. Errors of ours end as one line on standard error and their exit code."""
    try:
        app()
    except BrokenPipeError:
        # The reader (head, less) has gone. Python would complain once more while it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:  # by name (`is_ours`): to name their classes here, every service would be imported
        if not is_ours(error):
            raise
        typer.secho(f"fediwarden: {error}", err=True, fg=typer.colors.RED)
        sys.exit(exit_code(error))
