"""``scan``: post files to a running gateway and show what it makes of them."""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fediwarden.cli.options import ConfigOption, read_settings
from fediwarden.cli.tables import make_table, print_table
from fediwarden.exits import FAILED, OK, USAGE

if TYPE_CHECKING:
    import ssl

    import httpx

    from fediwarden.settings import Settings

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".avif", ".jxl", ".mp4", ".m4v", ".webm")
)
"""Which files of a folder are posted. A file named by itself is posted whatever it is called."""

CONCURRENCY = 4
JUDGED = frozenset(("verdict", "known", "override", "list"))
"""How an answer came about that rests on a judgement; any other is the tenant's policy for what is not known."""

_TIMEOUT_S = 60.0
_SHOWN = 50
_BUSY_TRIES = 5
_BUSY_PAUSE_S = 1.0
_BUSY_PAUSE_MOST_S = 30.0


class ScanFailed(Exception):
    """Nothing can be scanned at all; the message says why and what to do."""

    exit_code = USAGE


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file. `error` is empty where the gateway decided; `decision` is empty where it did not."""

    file: str
    decision: str = ""
    accepted: bool = False
    answered_by: str = ""
    rules: tuple[str, ...] = ()
    scores: dict[str, float] | None = None
    milliseconds: float = 0.0
    scan_id: str = ""
    sha256: str = ""
    error: str = ""


def scan(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE|FOLDER...", help="Folders are walked.", exists=True)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a file, as they come.")] = False,
    url: Annotated[str | None, typer.Option(help="The gateway. Default: the one of the settings.")] = None,
    key_env: Annotated[
        str | None,
        typer.Option(metavar="VARIABLE", help="Environment variable with the tenant key. Default: the only tenant's."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Judge images and videos. Exit code 1 when one was rejected, 2 when one could not be judged."""
    settings = read_settings(config)
    files = sorted(set(walk(paths)))
    if not files:
        raise ScanFailed(f"no images or videos in {', '.join(str(path) for path in paths)}")
    outcomes = _post_all(
        files,
        url or settings.gateway_url,
        _key_of(key_env, settings),
        tls=None if url else settings.gateway.tls.own_context(),
        as_json=as_json,
    )
    if not as_json:
        _print_table(outcomes)
    raise typer.Exit(_exit_code(outcomes))


def walk(paths: Iterable[Path]) -> Iterator[Path]:
    """The files named, and in folders those whose names end as images' and videos' do."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, _, names in os.walk(path):
            yield from (Path(folder) / name for name in names if Path(name).suffix.lower() in SUFFIXES)


def _key_of(variable: str | None, settings: "Settings") -> str | None:
    """The key that `variable` holds, else that of the only tenant. A command line is everybody's to read."""
    if variable is None:
        return _only_key(settings)
    key = os.environ.get(variable)
    if not key:
        raise ScanFailed(f"--key-env names the environment variable {variable}, which is not set")
    return key


def _only_key(settings: "Settings") -> str | None:
    keys = [tenant.key for tenant in settings.tenants.values()]
    return keys[0].get_secret_value() if len(keys) == 1 and keys[0] is not None else None


def _post_all(
    files: list[Path], url: str, key: str | None, *, tls: "ssl.SSLContext | None", as_json: bool
) -> list[Outcome]:
    import httpx
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("scanning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    headers = {"authorization": f"Bearer {key}"} if key else {}
    outcomes: list[Outcome] = []
    with (
        httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=False, verify=tls or True) as client,
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress,
        ThreadPoolExecutor(CONCURRENCY) as pool,
    ):
        _check_gateway(client)
        task = progress.add_task("scan", total=len(files))
        futures: list[Future[Outcome]] = [pool.submit(_post, client, file) for file in files]
        try:
            for future in as_completed(futures):
                outcome = future.result()
                outcomes.append(outcome)
                progress.advance(task)
                if as_json:
                    import json

                    typer.echo(json.dumps(asdict(outcome)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sorted(outcomes, key=lambda outcome: outcome.file)


def _check_gateway(client: "httpx.Client") -> None:
    import httpx

    try:
        client.get("/healthz", timeout=5.0).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ScanFailed(
            f"no gateway answers at {client.base_url} ({str(error) or type(error).__name__})."
            " Start one with: fediwarden up, or name one with --url"
        ) from error


def _post(client: "httpx.Client", file: Path) -> Outcome:
    import httpx

    try:
        for _ in range(_BUSY_TRIES):
            with file.open("rb") as body:
                response = client.post("/v1/scans", content=body)
            if response.status_code not in (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS):
                break
            asked_for = response.headers.get("retry-after", "")
            # In a thread of its own: a full gateway gives no event when it has room.
            time.sleep(min(float(asked_for), _BUSY_PAUSE_MOST_S) if asked_for.isdecimal() else _BUSY_PAUSE_S)
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ScanFailed(
                f"the gateway refuses us: {_error_of(response)}."
                " The tenant's key goes into an environment variable, whose name goes into --key-env"
            )
        if response.status_code != httpx.codes.OK:
            return Outcome(str(file), error=_error_of(response))
        return _outcome(file, response.json())
    except OSError as error:
        return Outcome(str(file), error=str(error.strerror or error))
    except (httpx.HTTPError, ValueError) as error:
        return Outcome(str(file), error=f"no answer ({str(error) or type(error).__name__})")


def _error_of(response: "httpx.Response") -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status_code}"


def _outcome(file: Path, answer: dict[str, Any]) -> Outcome:
    return Outcome(
        str(file),
        decision=answer["decision"],
        accepted=answer["accepted"],
        answered_by=answer["answered_by"],
        rules=tuple(rule["name"] for rule in answer["rules"]),
        scores=answer["scores"],
        milliseconds=answer["milliseconds"],
        scan_id=answer["scan_id"],
        sha256=answer["sha256"],
    )


def _exit_code(outcomes: Iterable[Outcome]) -> int:
    outcomes = list(outcomes)
    if any(outcome.error for outcome in outcomes):
        return USAGE
    return OK if all(outcome.accepted for outcome in outcomes) else FAILED


def _print_table(outcomes: list[Outcome]) -> None:
    """Every file where there are few, else those that were not judged and accepted; then the counts."""
    from rich.text import Text

    colours = {"accept": "green", "review": "yellow", "reject": "red"}
    table = make_table("file", "decision", "answered by", "rules", "highest score", "ms")
    shown = outcomes if len(outcomes) <= _SHOWN else [each for each in outcomes if _count_as(each) != "accept"]
    for each in shown:
        if each.error:
            table.add_row(Text(each.file), Text("error", "red"), "", Text(each.error), "", "")
            continue
        highest = max((each.scores or {}).items(), key=lambda pair: pair[1], default=None)
        table.add_row(
            Text(each.file),
            Text(each.decision, colours.get(each.decision, "")),
            each.answered_by,
            Text(", ".join(each.rules)),
            f"{highest[0]} {highest[1]:.2f}" if highest else "",
            f"{each.milliseconds:.0f}",
        )
    if shown:
        print_table(table)
    counts = Counter(map(_count_as, outcomes))
    words = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    typer.echo(f"{len(outcomes)} {'file' if len(outcomes) == 1 else 'files'}: {words}")


def _count_as(outcome: Outcome) -> str:
    if outcome.error:
        return "errors"
    return outcome.decision if outcome.answered_by in JUDGED else f"{outcome.decision} without a verdict"
