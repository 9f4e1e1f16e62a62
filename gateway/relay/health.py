"""The relay's own port: whether it serves, what it lacks, what it has counted."""

from collections.abc import Callable, Sequence

from gateway.readiness import Part, readiness_reply
from gateway.relay.metrics import RelayMetrics
from gateway.replies import Receive, Reply, Scope, Send


class Health:
    """GET /healthz (it runs), /readyz (it does its whole work, part by part) and /metrics (Prometheus)."""

    def __init__(self, parts: Callable[[], Sequence[Part]], metrics: RelayMetrics) -> None:
        self._parts = parts
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._reply(scope)(scope, receive, send)

    def _reply(self, scope: Scope) -> Reply:
        if scope["method"] in ("GET", "HEAD"):
            match scope["path"]:
                case "/healthz":
                    return Reply(200, b'{"ok":true}')
                case "/readyz":
                    return readiness_reply(self._parts())
                case "/metrics":
                    return Reply(200, self._metrics.render(), media_type=b"text/plain; version=0.0.4; charset=utf-8")
        return Reply(404, b'{"error":{"code":"not_found","remedy":"ask for /healthz, /readyz or /metrics"}}')
