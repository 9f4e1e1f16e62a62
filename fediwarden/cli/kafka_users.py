"""``kafka users``: users of a Kafka with ACLs, each with the rights of one role. Passwords are made here."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fediwarden.cli.options import ConfigOption, JsonOption, read_settings

if TYPE_CHECKING:
    from fediwarden.access.roles import Role
    from schemas.broker import Right

app = typer.Typer(
    help="Users of a Kafka with ACLs, each with the rights of one role. Needs a super user's settings.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(help="The user's name, as Kafka knows it.", show_default=False)]
RoleOption = Annotated[
    str, typer.Option("--role", help="Whose rights: `kafka users roles` names them.", show_default=False)
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="Write the password to this new file (mode 0600) instead of printing it, once.",
        show_default=False,
    ),
]


@app.command("add")
def add(name: NameArgument, role: RoleOption, password_file: FileOption = None, config: ConfigOption = None) -> None:
    """Make a user with a made password and the rights of a role, and no other."""
    from fediwarden.access.users import add_user, check_name, make_password

    its_role = _role(role)
    settings = read_settings(config)
    check_name(name)
    password = make_password()
    with _kept(password, password_file):
        asyncio.run(add_user(settings, name, its_role, password))
    typer.echo(f"{name} may log in now, with the rights of {its_role.name}", err=True)
    _tell(password, password_file)


@app.command("password")
def password(name: NameArgument, password_file: FileOption = None, config: ConfigOption = None) -> None:
    """Give a user another password. What is logged in stays so: restart it with the new one."""
    from fediwarden.access.users import change_password, make_password

    made = make_password()
    with _kept(made, password_file):
        asyncio.run(change_password(read_settings(config), name, made))
    typer.echo(f"{name} has a new password", err=True)
    _tell(made, password_file)


@app.command("grant")
def grant(name: NameArgument, role: RoleOption, config: ConfigOption = None) -> None:
    """Make the rights of a role all that a user has: after an upgrade, or where the settings name other groups."""
    from fediwarden.access.users import grant_role

    given, taken = asyncio.run(grant_role(read_settings(config), name, _role(role)))
    for right in sorted(given):
        typer.echo(f"given: {right}")
    for right in sorted(taken):
        typer.echo(f"taken: {right}")
    if not given and not taken:
        typer.echo(f"{name} has the rights of {role} already, and no other")


@app.command("remove")
def remove(name: NameArgument, config: ConfigOption = None) -> None:
    """Take a user's rights, which ends what it does at once, and then its password."""
    from fediwarden.access.users import drop_user

    rights = asyncio.run(drop_user(read_settings(config), name))
    typer.echo(f"{name} has no rights any more ({rights} taken) and cannot log in")


@app.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List users with the role whose rights they have, and how many rights that are."""
    from fediwarden.access.users import read_users

    users = asyncio.run(read_users(read_settings(config)))
    if as_json:
        import json

        rows = [
            {
                "name": user.name,
                "password": user.logs_in,
                "roles": user.roles,
                "rights": [right._asdict() for right in sorted(user.rights)],
            }
            for user in users
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    from fediwarden.cli.tables import make_table, print_table

    if not users:
        typer.echo("no users; `fediwarden kafka users add NAME --role ROLE` makes the first")
        return
    table = make_table("name", "role", "rights", "password")
    for user in users:
        role = ", ".join(user.roles) or ("of no role" if user.rights else "none")
        table.add_row(user.name, role, str(len(user.rights)), "yes" if user.logs_in else "no")
    print_table(table)


@app.command("roles")
def roles(
    role: Annotated[str | None, typer.Argument(help="Only this one, with each right.", show_default=False)] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the roles, or the rights of one: for whoever gives them by other means. Asks no cluster."""
    from fediwarden.access.roles import ROLES, rights_of
    from fediwarden.cli.tables import make_table, print_table

    settings = read_settings(config)
    if role is None and not as_json:
        table = make_table("role", "rights", "for")
        for each in ROLES.values():
            table.add_row(each.name, str(len(rights_of(each, settings))), each.purpose)
        print_table(table)
        return
    chosen = [_role(role)] if role is not None else list(ROLES.values())
    if as_json:
        import json

        report = {each.name: [right._asdict() for right in sorted(rights_of(each, settings))] for each in chosen}
        typer.echo(json.dumps(report, indent=2))
        return
    table = make_table("on", "operations")
    operations: dict[str, list[Right]] = {}
    for right in sorted(rights_of(chosen[0], settings)):
        operations.setdefault(f"{right.kind} {right.name}{'*' if right.prefixed else ''}", []).append(right)
    for resource, rights in operations.items():
        table.add_row(resource, ", ".join(right.operation for right in rights))
    print_table(table)


def _role(name: str) -> "Role":
    from fediwarden.access.roles import ROLES

    try:
        return ROLES[name]
    except KeyError:
        raise typer.BadParameter(f"--role: {name!r} is no role; choose {', '.join(ROLES)}") from None


@contextmanager
def _kept(password: str, file: Path | None) -> Iterator[None]:
    """Have the password in `file` before the cluster goes by it; the file goes again where that fails."""
    from fediwarden.private_files import write_new

    if file is None:
        yield
        return
    write_new(file, f"{password}\n".encode())
    try:
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _tell(password: str, file: Path | None) -> None:
    if file is None:
        typer.echo("its password, which is shown once (kafka.sasl_password):", err=True)
        typer.echo(password)
    else:
        typer.echo(f"its password is in {file} (kafka.sasl_password)", err=True)
