"""``lists``: known-hash lists, which the gateways of this machine match images with."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fediwarden.cli.options import ConfigOption, DataDirOption, JsonOption, nested_flags, read_settings
from fediwarden.cli.tables import make_table, print_table
from fediwarden.exits import FAILED

if TYPE_CHECKING:
    from gateway.lists.definition import ListDefinition
    from gateway.lists.settings import ListSettings
    from gateway.lists.store import ListStore, StoredList

app = typer.Typer(help="Known-hash lists: add, refresh, show, test, export, resume, remove.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The list's name.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Lists; all that have a source if none.")]


class Action(StrEnum):
    """What a match comes to."""

    REJECT = "reject"
    REVIEW = "review"


class Kind(StrEnum):
    """What a hash is of; as `gateway.lists.kinds` has them."""

    PDQ = "pdq"
    SHA256 = "sha256"
    MD5 = "md5"


KindOption = Annotated[Kind | None, typer.Option("--kind", help="What hashes of 64 digits are, pdq or sha256.")]


class Form(StrEnum):
    """How a list is written."""

    JSON = "json"
    CSV = "csv"
    TEXT = "text"


@app.command("add")
def add(
    name: Name,
    source: Annotated[
        str, typer.Argument(help="A file, an http(s) address, or exchange:NAME?option=value (see docs/lists.md).")
    ],
    action: Annotated[Action, typer.Option(help="What a match comes to; review: judged first, then reviewed.")] = (
        Action.REJECT
    ),
    reason: Annotated[str, typer.Option(help="What clients and moderators read about a match.")] = "",
    responsible: Annotated[str, typer.Option(help="Who answers for this list.")] = "",
    kind: KindOption = None,
    distance: Annotated[int, typer.Option(min=0, max=31, help="Bits of 256 in which a picture may differ.")] = 31,
    expires: Annotated[
        str | None, typer.Option(metavar="DATE", help="Match no more from then on: 2027-01-31, or a time.")
    ] = None,
    token_env: Annotated[
        str, typer.Option(metavar="VARIABLE", help="Environment variable with the bearer token of an address.")
    ] = "",
    guard: Annotated[bool, typer.Option(help="Suspend it when it matches too much (gateway.lists.guard_share)")] = True,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a list with this name.")] = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Add a list: its hashes are read now, and matched by every gateway within seconds."""
    from gateway.lists.errors import ListExists

    settings, store = _open(data_dir, config)
    if not replace and name in store.names():
        raise ListExists(f"there is a list {name!r} already; --replace puts this one in its place")
    definition = _define(
        name=name,
        source=str(Path(source).absolute()) if _is_path(source) else source,
        action=action.value,
        reason=reason,
        responsible=responsible,
        kind=kind.value if kind else None,
        distance=distance,
        expires_at=_moment(expires),
        token_env=token_env,
        guarded=guard,
    )
    _refresh(settings, store, definition)


@app.command("refresh")
def refresh(
    names: Names = None,
    every: Annotated[
        int | None, typer.Option(metavar="SECONDS", min=30, help="Go on refreshing, every so many seconds.")
    ] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Read lists anew from their sources. Exit code 1 when one could not be read: its hashes stay as they were."""
    from gateway.lists.errors import ListError

    settings, store = _open(data_dir, config)
    while True:
        faults = 0
        for name in names or store.names():
            try:
                definition = store.load(name).definition
                if definition.source or names:
                    _refresh(settings, store, definition)
            except ListError as error:
                faults += 1
                typer.secho(f"{name}: {error}", fg=typer.colors.RED, err=True)
        if every is None:
            break
        time.sleep(every)  # that is what --every asks for; Ctrl-C ends it
    if faults:
        raise typer.Exit(FAILED)


@app.command("show")
def show(data_dir: DataDirOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show every list: what it does, how many hashes it has, and whether it is matched."""
    from gateway.lists.errors import ListError

    _, store = _open(data_dir, config)
    rows: list[dict[str, Any]] = []
    for name in store.names():
        try:
            rows.append(_as_row(store, store.load(name)))
        except ListError as error:
            rows.append({"name": name, "state": f"damaged: {error}"})
    if as_json:
        import json

        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("There are no lists. `fediwarden lists add NAME SOURCE` adds one.")
        return
    table = make_table("list", "state", "action", "hashes", "version", "read", "source", "responsible")
    for row in rows:
        counts = ", ".join(f"{count} {kind}" for kind, count in row.get("counts", {}).items())
        cells = (row["name"], row["state"], row.get("action"), counts, row.get("version"), row.get("fetched_at"))
        table.add_row(*(str(cell or "") for cell in cells), row.get("source") or "", row.get("responsible") or "")
    print_table(table)


@app.command("test")
def test(
    hash_: Annotated[str, typer.Argument(metavar="HASH", help="A PDQ, sha256 or md5 hash in hexadecimal.")],
    kind: KindOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which lists have a hash; a PDQ hash turned and mirrored as well. Exit code 1 when none has."""
    from gateway.lists.kinds import WIDTH, HashKind, as_digest
    from gateway.lists.loaded import find_hash

    _, store = _open(data_dir, config)
    digest = as_digest(hash_, HashKind(kind) if kind else None)
    kinds = [HashKind(kind)] if kind else [each for each in HashKind if WIDTH[each] == len(digest)]
    found = [
        {"list": name, "kind": match.kind.value, "distance": match.distance, "action": match.decision.value}
        | {"state": _state(store, stored)}
        for name in store.names()
        for stored in [store.load(name)]
        for match in find_hash(stored, digest, kinds)
    ]
    if as_json:
        import json

        typer.echo(json.dumps(found, indent=2))
    for each in found if not as_json else ():
        how = f"{each['distance']} of 256 bits off" if each["kind"] == "pdq" else "the same"
        typer.echo(f"{each['list']}: {each['kind']}, {how}; {each['action']}, {each['state']}")
    if not found:
        typer.echo("no list has it", err=as_json)
        raise typer.Exit(FAILED)


@app.command("remove")
def remove(
    name: Name,
    hash_: Annotated[
        str | None, typer.Option("--hash", metavar="HASH", help="Take out only this hash, and leave the list.")
    ] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove a list, or one hash of it."""
    from gateway.lists.kinds import as_digest
    from gateway.lists.learning import forget_hash

    _, store = _open(data_dir, config)
    if hash_ is None:
        store.remove(name)
        typer.echo(f"{name}: removed")
    elif forget_hash(store, name, as_digest(hash_)):
        typer.echo(f"{name}: {hash_} is taken out")
    else:
        typer.echo(f"{name}: {hash_} was not on it; it will not be learnt either")


@app.command("resume")
def resume(name: Name, data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Match with a suspended list again."""
    _, store = _open(data_dir, config)
    store.load(name)
    typer.echo(f"{name}: {'matched again' if store.resume(name) else 'was not suspended'}")


@app.command("export")
def export(
    name: Name,
    form: Annotated[Form, typer.Option("--format", help="json (all that is known of it), csv or text.")] = Form.JSON,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Write a list to standard output."""
    _, store = _open(data_dir, config)
    for line in _lines(store.load(name), form):
        typer.echo(line)


def _open(data_dir: Path | None, config: Path | None) -> "tuple[ListSettings, ListStore]":
    from gateway.lists.store import ListStore

    settings = read_settings(config, nested_flags(data_dir=data_dir)).gateway.lists
    assert settings.folder is not None, "Settings derive it from data_dir"
    return settings, ListStore(settings.folder)


def _define(**fields: Any) -> "ListDefinition":
    from pydantic import ValidationError

    from gateway.lists.definition import ListDefinition

    try:
        return ListDefinition.model_validate(fields)
    except ValidationError as error:
        fault = error.errors()[0]
        raise typer.BadParameter(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


def _refresh(settings: "ListSettings", store: "ListStore", definition: "ListDefinition") -> None:
    from gateway.lists.sources import fetch_hashes

    parsed = fetch_hashes(definition, most=settings.max_hashes)
    with store.locked():
        saved = store.save(definition, parsed.hashes)
    counts = ", ".join(f"{count} {kind}" for kind, count in saved.hashes.counts.items())
    over = f"; {parsed.passed_over} entries of other kinds passed over" if parsed.passed_over else ""
    typer.echo(f"{definition.name}@{saved.version}: {counts}{over}")
    if (suspension := store.suspension(definition.name)) is not None:
        typer.secho(
            f"{definition.name} stays suspended: it matched {suspension.matched} of {suspension.images} images;"
            f" `fediwarden lists resume {definition.name}` uses it again",
            fg=typer.colors.YELLOW,
        )


def _as_row(store: "ListStore", stored: "StoredList") -> dict[str, Any]:
    definition = stored.definition
    return {
        "name": definition.name,
        "state": _state(store, stored),
        "action": definition.action,
        "reason": definition.reason,
        "counts": stored.hashes.counts,
        "version": stored.version,
        "fetched_at": _utc(stored.fetched_at),
        "expires_at": _utc(definition.expires_at) if definition.expires_at is not None else None,
        "distance": definition.distance,
        "guarded": definition.guarded,
        "source": definition.source or definition.origin,
        "responsible": definition.responsible,
    }


def _state(store: "ListStore", stored: "StoredList") -> str:
    from schemas.clock import now_ms

    if stored.definition.has_expired(now_ms()):
        return "expired"
    suspension = store.suspension(stored.name)
    if suspension is not None:
        return f"suspended: it matched {suspension.matched} of {suspension.images} images, {_utc(suspension.at)}"
    return "matched"


def _lines(stored: "StoredList", form: Form) -> Iterator[str]:
    from gateway.lists.files import as_csv, as_text
    from gateway.lists.publishing import as_document

    if form is Form.JSON:
        import json

        yield json.dumps(as_document(stored), indent=2)
    else:
        yield from as_csv(stored.hashes) if form is Form.CSV else as_text(stored.hashes)


def _is_path(source: str) -> bool:
    return not source.startswith(("http://", "https://", "exchange:"))


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"--expires: {text!r} is no date; write 2027-01-31 or 2027-01-31T18:00") from error
    return int(at.timestamp() * 1000)


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
