"""Whether a process beside this one is well, for a container's health check: ``python -m fediwarden.health WHAT``.

WHAT is an ``http://`` address that has to answer 200, or ``connection:PORT``: somebody in this container has to hold an
open TCP connection to that port, for processes that serve nothing and are of no use without Kafka. The exit status is
0 or 1. Only the standard library, and little of it: this starts a hundred times an hour.
"""

import http.client
import sys
from collections.abc import Sequence
from pathlib import Path

WITHIN_S = 4.0
_ESTABLISHED = "01"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def examine(what: str, tables: Sequence[Path] = _TABLES) -> str | None:
    """What is wrong, or None. Raises ValueError when `what` is nothing that can be looked at."""
    kind, _, rest = what.partition(":")
    if kind == "http" and rest.startswith("//"):
        host, _, path = rest[2:].partition("/")
        return _ask(host, f"/{path}")
    if kind == "connection" and rest.isdecimal():
        return None if _holds_connection(int(rest), tables) else f"no connection to port {rest}"
    raise ValueError(f"{what}: write http://HOST:PORT/PATH or connection:PORT")


def _ask(host: str, path: str) -> str | None:
    connection = http.client.HTTPConnection(host, timeout=WITHIN_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        said = response.read(1000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if response.status == http.HTTPStatus.OK else f"{response.status} {said}"


def _holds_connection(port: int, tables: Sequence[Path]) -> bool:
    for table in tables:
        if table.exists():
            for row in table.read_text().splitlines()[1:]:
                columns = row.split()
                if columns[3] == _ESTABLISHED and int(columns[2].rpartition(":")[2], 16) == port:
                    return True
    return False


def main(arguments: Sequence[str]) -> int:
    """Look at what the one argument names; say what is wrong on standard output, where a health check's log is made."""
    try:
        (what,) = arguments
        fault = examine(what)
    except ValueError as error:
        fault = str(error)
    sys.stdout.write(f"{fault or 'well'}\n")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
