"""``overrides``: the word of a moderator, which goes before every list, verdict and policy."""

import asyncio
import getpass
import re
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fediwarden.cli.options import ConfigOption, JsonOption, read_settings
from fediwarden.cli.tables import make_table, print_table
from fediwarden.cli.times import local, span_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.overrides.editor import OverrideEditor
    from gateway.overrides.memory import Overrides
    from schemas.broker import BrokerSettings
    from schemas.messages import OverrideSet

app = typer.Typer(
    help="Images that are accepted or refused whatever models and policy say: allow, deny, list, remove.",
    no_args_is_help=True,
)

Result = TypeVar("Result")

_HEX = re.compile("[0-9a-fA-F]{64}")
_SPAN = re.compile(r"\d+[smhd]")

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE",
        help="Which image: a scan id (as in the reply's X-Fediwarden-Scan-Id, the log and the ledger), sha256:HEX, or"
        " pdq:HEX.",
    ),
]
WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="Why; shown wherever the override is used.")]
ByOption = Annotated[str, typer.Option("--by", metavar="NAME", help="Whose word it is. Default: the login name.")]
UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="Until when: 30d, 12h, or 2027-01-31T18:00. Default: for ever."),
]
TenantOption = Annotated[str, typer.Option("--tenant", metavar="NAME", help="For this tenant only. Default: all.")]
DistanceOption = Annotated[
    int | None,
    typer.Option("--distance", help="How many of a PDQ hash's 256 bits may differ, 0 to 64. Default: 31."),
]
ExactOption = Annotated[
    bool, typer.Option("--exact", help="Of a scan, only its bytes: not what looks the same (re-encoded, another size).")
]


def _add_setter(effect: str, help_: str) -> None:
    """Add the command that sets overrides of this effect: `allow` and `deny` differ in nothing else."""

    @app.command(effect, help=help_)
    def set_(
        image: TargetArgument,
        why: WhyOption,
        by: ByOption = "",
        until: UntilOption = None,
        tenant: TenantOption = "",
        distance: DistanceOption = None,
        exact: ExactOption = False,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        fields = _request(effect, image, why, by, until, tenant, distance, exact)
        _print(_edit(config, lambda editor: _set(editor, fields)), as_json)


_add_setter(
    "allow", "Accept an image from now on, and keep it: the enforcer leaves it in pict-rs, whatever later verdicts say."
)
_add_setter("deny", "Refuse an image from now on; the enforcer removes it from pict-rs where it is stored already.")


@app.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List every override, the latest first; the expired among them."""
    broker = read_settings(config).kafka.broker_settings()
    _print(asyncio.run(_read(broker)).standing(), as_json)


@app.command("remove")
def remove(
    image: Annotated[
        str, typer.Argument(metavar="ID", help="An override's id, or the scan id, sha256:HEX or pdq:HEX it is about.")
    ],
    tenant: Annotated[
        str, typer.Option("--tenant", metavar="NAME", help="Only those for this tenant alone. Default: all.")
    ] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take overrides back: what they were about is judged again as any other image."""
    from gateway.overrides.editor import OverrideUnknown

    broker = read_settings(config).kafka.broker_settings()
    gone = [
        each
        for each in asyncio.run(_read(broker)).standing()
        if image.lower() in (each.override_id, each.scan_id.lower(), f"{each.kind}:{each.hash.hex()}")
        and tenant in ("", each.tenant)
    ]
    if not gone:
        raise OverrideUnknown(
            f"no override is about {image!r}", field="image", remedy="`fediwarden overrides list` shows what there is"
        )

    async def take_back(editor: "OverrideEditor") -> None:
        for each in gone:
            await editor.remove(each.override_id)

    _edit(config, take_back)
    _print(gone, as_json)


def _request(
    effect: str,
    image: str,
    why: str,
    by: str,
    until: str | None,
    tenant: str,
    distance: int | None,
    exact: bool,
) -> dict[str, Any]:
    """The fields of `gateway.overrides.editor.OverrideRequest`, which checks them."""
    kind, colon, value = image.partition(":")
    if not colon and _HEX.fullmatch(image):
        raise typer.BadParameter(f"IMAGE: is it a sha256 or a PDQ hash? write sha256:{image} or pdq:{image}")
    if colon and kind not in ("sha256", "pdq"):
        raise typer.BadParameter(f"IMAGE: {image!r} is neither a scan id nor sha256:HEX nor pdq:HEX")
    fields: dict[str, Any] = {
        "effect": effect,
        kind if colon else "scan_id": value if colon else image,
        "reason": why,
        "set_by": by or getpass.getuser(),
        "until": None if until is None else _moment_ahead(until),
        "exact": exact,
    }
    if tenant:
        fields["tenant"] = tenant
    if distance is not None:
        fields["distance"] = distance
    return fields


def _moment_ahead(text: str) -> datetime:
    if _SPAN.fullmatch(text):
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + span_ms(text, "--until") / 1000, UTC)
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise typer.BadParameter(
            f"--until: {text!r} is no time; write 30d or 12h (from now), or a time such as 2027-01-31T18:00"
        ) from error


async def _set(editor: "OverrideEditor", fields: dict[str, Any]) -> "list[OverrideSet]":
    from gateway.overrides.editor import read_request

    return [placed.override for placed in await editor.set(read_request(fields))]


def _edit(config: ConfigOption, edit: "Callable[[OverrideEditor], Coroutine[Any, Any, Result]]") -> Result:
    from gateway.overrides.editor import OverrideEditor
    from schemas.broker import Producer, check_topics
    from schemas.topics import OVERRIDES

    broker = read_settings(config).kafka.broker_settings()

    async def go() -> Result:
        await check_topics(broker, (OVERRIDES,))
        async with Producer(broker, client_id="fediwarden-overrides") as producer:
            return await edit(OverrideEditor(broker, producer))

    return asyncio.run(go())


async def _read(broker: "BrokerSettings") -> "Overrides":
    from gateway.overrides.memory import Overrides
    from schemas.broker import check_topics, read_history
    from schemas.topics import OVERRIDES

    await check_topics(broker, (OVERRIDES,))
    overrides = Overrides()
    await read_history(broker, (OVERRIDES,), since_ms=0, on_record=overrides.observe, client_id="fediwarden-overrides")
    return overrides


def _print(overrides: "Sequence[OverrideSet]", as_json: bool) -> None:
    from gateway.overrides.plain import as_plain
    from schemas.clock import now_ms

    if as_json:
        import json

        typer.echo(json.dumps([as_plain(each) for each in overrides], indent=2))
        return
    from rich.markup import escape

    table = make_table("id", "says", "image", "tenant", "by", "set", "until", "why")
    for each in overrides:
        until = "" if each.until is None else local(each.until)
        image = f"{each.kind}:{each.hash.hex()}" + (f" within {each.distance}" if each.distance else "")
        says = each.effect.value if each.holds(now_ms()) else f"{each.effect.value} (expired)"
        by, why = escape(each.set_by), escape(each.reason)
        table.add_row(each.override_id, says, image, each.tenant, by, local(each.set_at), until, why)
    print_table(table)
