"""Overrides as JSON has them."""

from datetime import UTC, datetime
from typing import Any

from schemas.clock import now_ms
from schemas.messages import OverrideSet


def as_plain(override: OverrideSet) -> dict[str, Any]:
    """An override as JSON has it: hashes hexadecimal, times ISO 8601 in UTC."""
    return {
        "id": override.override_id,
        "effect": override.effect.value,
        "kind": override.kind.value,
        "hash": override.hash.hex(),
        "distance": override.distance,
        "tenant": override.tenant,
        "set_by": override.set_by,
        "reason": override.reason,
        "set_at": _utc(override.set_at),
        "until": None if override.until is None else _utc(override.until),
        "scan_id": override.scan_id or None,
        "expired": not override.holds(now_ms()),
    }


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
