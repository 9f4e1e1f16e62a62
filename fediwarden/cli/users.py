"""``users``: who may open the pages of the audit. Passwords are asked for or read, never arguments."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from fediwarden.cli.options import ConfigOption, DataDirOption, JsonOption, nested_flags, read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from federation_audit.accounts.actions import Actor
    from federation_audit.accounts.roles import Role
    from federation_audit.accounts.users import Users

app = typer.Typer(help="Users of the audit's pages: add, remove, list, password.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The user's name: a-z, 0-9, '.', '_', '-'.", show_default=False)]
StdinOption = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input (its first line).")
]
MakeOption = Annotated[bool, typer.Option("--make", help="Make a password and print it, once.")]


@app.command("add")
def add(
    name: NameArgument,
    role: Annotated[str, typer.Option("--role", help="viewer, reviewer or admin.")] = "viewer",
    password_stdin: StdinOption = False,
    make: MakeOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Add a user. A password that is typed here counts as the user's own; a made one is changed at the first login."""
    from federation_audit.accounts.users import check_name

    name, its_role = check_name(name), _role(role)
    users = _users(data_dir, config)
    password = _password(stdin=password_stdin, make=make)
    users.add(name, its_role, password, by=_actor(), must_change=make)
    typer.echo(f"{name} was added as {its_role.value}")
    if make:
        typer.echo(password)


@app.command("password")
def password(
    name: NameArgument,
    password_stdin: StdinOption = False,
    make: MakeOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Set a user's password. Ends their sessions, and lets them try again after too many wrong passwords."""
    users = _users(data_dir, config)
    users.find(name)
    word = _password(stdin=password_stdin, make=make)
    users.set_password(name, word, by=_actor(), must_change=make)
    typer.echo(f"{name} has a new password, and is logged out everywhere")
    if make:
        typer.echo(word)


@app.command("remove")
def remove(name: NameArgument, data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Remove a user and end their sessions. What they did stays in the log."""
    _users(data_dir, config).remove(name, by=_actor())
    typer.echo(f"{name} was removed")


@app.command("list")
def list_(data_dir: DataDirOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List users with their roles."""
    from fediwarden.cli.times import local, utc

    users = _users(data_dir, config).all()
    if as_json:
        import json

        rows = [
            {
                "name": user.name,
                "role": user.role.value,
                "must_change": user.must_change,
                "added": utc(user.created_at),
                "last_login": user.login_at and utc(user.login_at),
            }
            for user in users
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    from fediwarden.cli.tables import make_table, print_table

    if not users:
        typer.echo("no users; `fediwarden users add NAME --role admin` makes the first")
        return
    table = make_table("name", "role", "password", "last login")
    for user in users:
        own = "to be changed" if user.must_change else "their own"
        table.add_row(user.name, user.role.value, own, local(user.login_at) if user.login_at else "never")
    print_table(table)


def _users(data_dir: "Path | None", config: "Path | None") -> "Users":
    from federation_audit.accounts.passwords import Passwords
    from federation_audit.accounts.users import Users
    from federation_audit.store.migrating import open_store

    settings = read_settings(config, nested_flags(data_dir=data_dir))
    return Users(open_store(settings.audit_database), Passwords())


def _role(text: str) -> "Role":
    from federation_audit.accounts.roles import Role

    try:
        return Role(text)
    except ValueError:
        raise typer.BadParameter(f"--role: {text!r} is no role; choose {', '.join(Role)}") from None


def _actor() -> "Actor":
    import getpass

    from federation_audit.accounts.actions import Actor

    try:
        who = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        who = "unknown"
    return Actor(f"command line ({who[:40]})")


def _password(*, stdin: bool, make: bool) -> str:
    if stdin and make:
        raise typer.BadParameter("--password-stdin and --make exclude each other")
    if make:
        from federation_audit.accounts.passwords import make_password

        return make_password()
    if stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask for the password: use --password-stdin or --make")
    asked: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return asked
