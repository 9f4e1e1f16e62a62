"""The reference of every command, as Markdown, made from the declarations. docs/commands.md holds it."""

from collections.abc import Iterator

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

BEGIN = "<!-- reference: python -m fediwarden.reference -->"
END = "<!-- end of reference -->"


def command_reference() -> str:
    """A list of all commands, then a section for each: how it is called, what it does, its arguments and options."""
    from fediwarden.cli import app

    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    commands = list(_walk(root, "fediwarden"))
    rows = "".join(
        f"| [`{path}`](#{_anchor(path)}) | {_cell(_first_paragraph(command))} |\n" for path, command in commands
    )
    return "\n".join(
        [f"| command | what it does |\n|---|---|\n{rows}", *(_section(path, command) for path, command in commands)]
    )


def _walk(group: TyperGroup, path: str) -> Iterator[tuple[str, TyperCommand | TyperGroup]]:
    """Every command below `group` with the words it is called by; a group itself where it does something alone."""
    for name, command in group.commands.items():
        assert isinstance(command, TyperCommand | TyperGroup)
        if command.hidden:
            continue
        if not isinstance(command, TyperGroup) or command.invoke_without_command:
            yield f"{path} {name}", command
        if isinstance(command, TyperGroup):
            yield from _walk(command, f"{path} {name}")


def _section(path: str, command: TyperCommand | TyperGroup) -> str:
    context = typer.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    if isinstance(command, TyperGroup):
        usage = usage.replace(" COMMAND [ARGS]...", "")  # its subcommands have sections of their own
    parts = [f"## `{path}`\n", f"```\n{usage}\n```\n", f"{(command.help or '').strip()}\n"]
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or parameter.name == "help":
            continue
        name, meaning = record
        if isinstance(parameter, TyperArgument):
            name = name.partition(" <")[0]
        rows.append(f"| {_code(name)} | {_cell(meaning)} |\n")
    if rows:
        parts.append("| argument or option | meaning |\n|---|---|\n" + "".join(rows))
    return "\n".join(parts)


def _anchor(path: str) -> str:
    """The anchor that a heading of this text gets."""
    return path.replace(" ", "-")


def _first_paragraph(command: TyperCommand | TyperGroup) -> str:
    return (command.help or "").strip().partition("\n\n")[0]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"
