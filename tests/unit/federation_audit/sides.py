"""Stand-ins for the other sides: real HTTP servers on loopback that keep to the interfaces as they are documented.

Lemmy 0.19 and 1.0 by crates/api and crates/db_views of LemmyNet/lemmy, Mastodon by its admin/domain_blocks controllers,
Fediseer by its flask routes, Coop by its docs/api/report.md. None of them is the real thing.
"""

import json
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Side(ABC):
    """Answers requests by `answer`; `failing` has the status that (method) requests get instead, `silent` methods get
    none. `before` is called with each request, before it is answered."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.failing: dict[str, int] = {}
        self.silent: set[str] = set()
        self.before: Callable[[Asked], None] = lambda asked: None
        self.url = ""
        self.ending = threading.Event()

    @abstractmethod
    def answer(self, asked: Asked) -> Reply: ...

    def written(self) -> list[Asked]:
        return [each for each in self.asked if each.method != "GET"]

    @contextmanager
    def running(self, tls: ssl.SSLContext | None = None) -> Iterator["Side"]:
        side = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                raw = self.rfile.read(length)
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, parts.path, query, headers, json.loads(raw) if raw else None)
                side.before(asked)
                side.asked.append(asked)
                if self.command in side.silent:
                    side.ending.wait(60)
                    return
                if self.command in side.failing:
                    reply: Reply = (side.failing[self.command], {"error": "as told"}, {"retry-after": "17"})
                else:
                    reply = side.answer(asked)
                content = json.dumps(reply[1]).encode()
                self.send_response(reply[0])
                for name, value in (reply[2] if len(reply) == 3 else {}).items():
                    self.send_header(name, value)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = _do  # noqa: N815  # as the server calls them

            def log_message(self, *args: Any) -> None:
                """Quietly."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            if tls is not None:
                server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.05))
            thread.start()
            self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}"
            try:
                yield self
            finally:
                self.ending.set()
                server.shutdown()
                thread.join()


class LemmyOld(Side):
    """0.19: federated_instances, and the PUT of a site, which replaces the list."""

    jwt = "admin-jwt"

    def __init__(self, blocked: list[str], allowed: list[str] | None = None) -> None:
        super().__init__()
        self.blocked = blocked
        self.allowed = allowed or []
        self.federates = True

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/api/v3/federated_instances" and asked.method == "GET":
            if not self.federates:
                return 200, {"federated_instances": None}
            named = {
                kind: [{"id": number, "domain": each} for number, each in enumerate(domains)]
                for kind, domains in (
                    ("linked", ["linked.example"]),
                    ("allowed", self.allowed),
                    ("blocked", self.blocked),
                )
            }
            return 200, {"federated_instances": named}
        if asked.path == "/api/v3/site" and asked.method == "PUT":
            if asked.headers.get("authorization") != f"Bearer {self.jwt}":
                return 401, {"error": "incorrect_login"}
            if "blocked_instances" in asked.body:
                self.blocked = list(asked.body["blocked_instances"])
            return 200, {"site_view": {}, "taglines": []}
        return 404, {"error": "not_found"}


class LemmyNew(Side):
    """1.0: one call a block; the list in pages, filtered by a part of the name."""

    jwt = "admin-jwt"

    def __init__(self, blocked: dict[str, int | None]) -> None:
        super().__init__()
        self.blocked = blocked

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization") != f"Bearer {self.jwt}":
            return 401, {"error": "incorrect_login"}
        if asked.path == "/api/v4/federated_instances" and asked.method == "GET":
            if asked.query.get("kind") != "blocked":
                return 400, {"error": "unknown", "message": "missing field kind"}
            names = [each for each in sorted(self.blocked) if asked.query.get("domain_filter", "") in each]
            at = int(asked.query.get("page_cursor", "0"))
            items = [
                {"instance": {"id": 1, "domain": each}, "blocked": {"expires_at": self.blocked[each]}}
                for each in names[at : at + 2]
            ]
            return 200, {"items": items, **({"next_page": str(at + 2)} if at + 2 < len(names) else {})}
        if asked.path == "/api/v4/admin/instance/block" and asked.method == "POST":
            body = asked.body
            if not isinstance(body.get("reason"), str) or not isinstance(body.get("block"), bool):
                return 400, {"error": "unknown", "message": "missing field"}
            if body["block"]:
                self.blocked[body["instance"]] = body.get("expires_at")
            else:
                del self.blocked[body["instance"]]
            return 200, {"instance": {"domain": body["instance"]}}
        return 404, {"error": "not_found"}


class MastodonSide(Side):
    """Domain blocks, newest first, in pages of `per_page`."""

    token = "admin-token"
    per_page = 2

    def __init__(self, blocks: list[dict[str, Any]]) -> None:
        super().__init__()
        self.blocks = {str(number): {"id": str(number), **each} for number, each in enumerate(blocks, 1)}

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return 403, {"error": "This action is outside the authorized scopes"}
        if asked.method == "GET":
            most = int(asked.query.get("max_id", "999999"))
            below = [self.blocks[key] for key in sorted(self.blocks, key=int, reverse=True) if int(key) < most]
            page = below[: self.per_page]
            link = {"link": f'<{self.url}/x?max_id=1>; rel="next"'} if len(below) > len(page) else {}
            return 200, page, link
        if asked.method == "POST":
            labels = asked.body["domain"].split(".")
            above = {".".join(labels[index:]) for index in range(len(labels))}
            if any(each["domain"] in above for each in self.blocks.values()):
                return 422, {"error": "A domain block already exists"}
            key = str(max(map(int, self.blocks), default=0) + 1)
            self.blocks[key] = {"id": key, **asked.body}
            return 200, self.blocks[key]
        key = asked.path.rpartition("/")[2]
        if key not in self.blocks:
            return 404, {"error": "Record not found"}
        self.blocks[key] |= asked.body
        return 200, self.blocks[key]


class FediseerSide(Side):
    """Hesitations and censures."""

    key = "fediseer-key"

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, dict[str, str]] = {}

    def answer(self, asked: Asked) -> Reply:
        if asked.method != "PUT" or asked.path.split("/")[3] not in ("hesitations", "censures"):
            return 404, {"message": "not found"}
        if asked.headers.get("apikey") != self.key:
            return 404, {"message": "No Instance found matching provided API key and domain."}
        if len(asked.body["evidence"]) > 1000:
            return 400, {"message": "Input payload validation failed"}
        if asked.path in self.said:
            return 200, {"message": "OK"}
        self.said[asked.path] = asked.body
        return 200, {"message": "Changed"}


class CoopSide(Side):
    """Reports, checked against the schema in Coop's ReportingRoutes.ts."""

    key = "coop-key"
    required: ClassVar[dict[str, type]] = {"reporter": dict, "reportedAt": str, "reportedItem": dict}

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("x-api-key") != self.key:
            return 401, {"errors": [{"status": 401, "title": "Invalid API key"}]}
        body = asked.body
        fine = all(isinstance(body.get(name), kind) for name, kind in self.required.items())
        fine = fine and body["reporter"]["kind"] == "user" and {"typeId", "id"} <= body["reporter"].keys()
        fine = fine and {"id", "typeId", "data"} <= body["reportedItem"].keys()
        if not fine:
            return 400, {"errors": [{"status": 400, "title": "Invalid request"}]}
        return 201, {"reportId": "4711"}


class InstanceSide(Side):
    """Another instance: answers by path from `pages`, as nodeinfo, Mastodon and Lemmy document; a string redirects."""

    def __init__(self, pages: dict[str, Any]) -> None:
        super().__init__()
        self.pages = pages

    def answer(self, asked: Asked) -> Reply:
        page = self.pages.get(asked.path)
        if isinstance(page, str):
            return 302, {}, {"location": page}
        return (404, {"error": "not_found"}) if page is None else (200, page)
