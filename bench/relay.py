"""What the relay costs: milliseconds a request more than without it, and memory for each request in flight.

    python -m bench.relay --requests 400 --open 50

A server that answers from memory stands for pict-rs in a process of its own, the relay (without a Kafka) in another;
this process asks both in turn, one request at a time on a connection that stays open, so that the two see the same
machine. Then it opens many requests of 40 MB that nobody reads, or that pict-rs does not take, and looks at the relay's
resident memory. Prints one line of JSON.
"""

import argparse
import asyncio
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from gateway.replies import Receive, Scope, Send

KB = 1024
LARGE = 40 * KB * KB
BODY = bytes(range(256)) * 256
ALIAS_ANSWER = b'{"msg":"ok","files":[{"file":"a.png","delete_token":"t","details":{}}]}'
STALLED = "/image/original/stalled"
START_S = 300.0
STOP_S = 120.0
LOG_SHOWN = 3000
SETTLE_LOOKS = 20
WARM_UP = 20

CASES: dict[str, tuple[str, str, int]] = {
    "get 5 KB": ("GET", f"/image/original/{5 * KB}", 0),
    "get 500 KB": ("GET", f"/image/original/{500 * KB}", 0),
    "get 500 KB, proxied: hashed": ("GET", "/image/original?proxy=https%3A%2F%2Fhost.example%2F{}", 0),
    "upload 500 KB": ("POST", "/image", 500 * KB),
}


async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for pict-rs: bodies of the size that the path names, one alias for each upload."""
    if scope["path"] == STALLED and scope["method"] == "POST":
        await receive()  # one piece is taken, no more
        await asyncio.Event().wait()
    if scope["method"] == "POST":
        while (await receive()).get("more_body"):
            pass
        await _answer(send, 201, b"application/json", [ALIAS_ANSWER], len(ALIAS_ANSWER))
        return
    last = scope["path"].rpartition("/")[2]
    size = LARGE if last == "stalled" else int(last) if last.isdecimal() else 500 * KB
    pieces = [BODY] * (size // len(BODY)) + [BODY[: size % len(BODY)]]
    await _answer(send, 200, b"image/png", pieces, size)


async def _answer(send: Send, status: int, media_type: bytes, pieces: list[bytes], size: int) -> None:
    headers = [(b"content-type", media_type), (b"content-length", str(size).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def serve_upstream(port: int) -> None:
    """Serve `upstream` until SIGTERM."""
    import uvicorn

    uvicorn.run(
        upstream,
        host="127.0.0.1",
        port=port,
        log_level="critical",
        ws="none",
        lifespan="off",
        timeout_keep_alive=120,
        timeout_graceful_shutdown=1,
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@contextmanager
def process(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[psutil.Process]:
    """A Python module in a process of its own, ended after."""
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", *command], env={**os.environ, **environment}, stdout=out, stderr=out
        )
    try:
        yield psutil.Process(child.pid)
    except BaseException:
        sys.stderr.write(log.read_text(errors="replace")[-LOG_SHOWN:])
        raise
    finally:
        child.terminate()
        child.wait(STOP_S)


def wait_for_port(port: int) -> None:
    """Return when somebody listens there."""
    until = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)  # another process gives no event when it listens


class Asker:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(self, method: str, target: str, size: int) -> float:
        """Milliseconds until the whole answer is here."""
        body = (BODY * (size // len(BODY) + 1))[:size] if size else None
        began = time.perf_counter()
        self._connection.request(method, target, body)
        response = self._connection.getresponse()
        response.read()
        took = (time.perf_counter() - began) * 1000.0
        if response.status not in (200, 201):
            raise RuntimeError(f"{method} {target}: {response.status}")
        return took


def cpu_s(process: psutil.Process) -> float:
    """Its CPU seconds so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(direct: int, relayed: int, requests: int, relay: psutil.Process) -> dict[str, dict[str, float]]:
    """Each case, both ways in turn. The relay's CPU time is what a busy machine does not spoil."""
    results = {}
    without, through = Asker(direct), Asker(relayed)
    for name, (method, target, size) in CASES.items():
        times: dict[str, list[float]] = {"direct": [], "relay": []}
        cpu = cpu_s(relay)
        for number in range(requests + WARM_UP):
            for way, asker in (("direct", without), ("relay", through)):
                times[way].append(asker.ask(method, target.format(number), size))
        cpu = cpu_s(relay) - cpu
        p50 = {way: statistics.median(each[WARM_UP:]) for way, each in times.items()}
        p95 = {way: statistics.quantiles(each[WARM_UP:], n=20)[18] for way, each in times.items()}
        results[name] = {
            "direct_p50_ms": round(p50["direct"], 3),
            "relay_p50_ms": round(p50["relay"], 3),
            "added_p50_ms": round(p50["relay"] - p50["direct"], 3),
            "ratio_p50": round(p50["relay"] / p50["direct"], 2),
            "relay_cpu_ms": round(cpu / (requests + WARM_UP) * 1000.0, 3),
            "added_p95_ms": round(p95["relay"] - p95["direct"], 3),
        }
    return results


def settled_rss(relay: psutil.Process) -> int:
    """Its resident bytes when they have not grown for a second."""
    highest, same = 0, 0
    while same < SETTLE_LOOKS:
        time.sleep(0.05)  # another process gives no event when it grows
        now = relay.memory_info().rss
        same = 0 if now > highest else same + 1
        highest = max(highest, now)
    return highest


def memory_each(relay: psutil.Process, count: int, begin: Callable[[], socket.socket]) -> float:
    """MB of the relay for each of `count` requests that are in flight and do not get on."""
    before = settled_rss(relay)
    connections = [begin() for _ in range(count)]
    after = settled_rss(relay)
    for each in connections:
        each.close()
    return (after - before) / count / 1e6


def unread_download(port: int) -> socket.socket:
    """A download of 40 MB of which only the head is read."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(f"GET {STALLED} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    connection.recv(10)
    return connection


def untaken_upload(port: int) -> socket.socket:
    """An upload of 40 MB of which pict-rs takes only the beginning."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(f"POST {STALLED} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n".encode())
    connection.settimeout(0.2)
    try:
        for _ in range(LARGE // len(BODY)):
            connection.sendall(BODY)
    except TimeoutError:
        pass  # nobody takes more
    return connection


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=400, help="requests a case and way")
    parser.add_argument("--open", type=int, default=50, help="requests in flight for the memory")
    parser.add_argument("--serve-upstream", type=int, metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_upstream:
        serve_upstream(arguments.serve_upstream)
        return
    direct, relayed, health = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="bench-relay-") as folder:
        environment = {
            "FEDIWARDEN_DATA_DIR": folder,
            "FEDIWARDEN_LOG__LEVEL": "warning",
            "FEDIWARDEN_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9",
            "FEDIWARDEN_RELAY__PORT": str(relayed),
            "FEDIWARDEN_RELAY__HEALTH_PORT": str(health),
            "FEDIWARDEN_TENANTS__DEFAULT__PICT_RS": f"http://127.0.0.1:{direct}",
            "FEDIWARDEN_TENANTS__DEFAULT__DOMAIN": "lemmy.example",
        }
        logs = Path(folder)
        with (
            process(["bench.relay", "--serve-upstream", str(direct)], {}, logs / "upstream.log"),
            process(["fediwarden", "relay"], environment, logs / "relay.log") as relay,
        ):
            for port in (direct, relayed):
                wait_for_port(port)
            idle = settled_rss(relay)
            cases = measure(direct, relayed, arguments.requests, relay)
            memory = {
                "idle_mb": round(idle / 1e6, 1),
                "after_the_cases_mb": round(settled_rss(relay) / 1e6, 1),
                "each_unread_download_mb": round(
                    memory_each(relay, arguments.open, lambda: unread_download(relayed)), 3
                ),
                "each_untaken_upload_mb": round(memory_each(relay, arguments.open, lambda: untaken_upload(relayed)), 3),
            }
    load = re.sub(r"\s.*", "", Path("/proc/loadavg").read_text())
    print(json.dumps({"requests": arguments.requests, "load_1m": float(load), "cases": cases, "memory": memory}))


if __name__ == "__main__":
    main()
