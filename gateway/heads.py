"""What endpoints read from a request's head."""

from typing import cast

from fastapi import Request

from gateway.refusals import Refusal, RefusalCode


def header(request: Request, name: bytes) -> str:
    """One header's value, "" where there is none."""
    for key, value in request.scope["headers"]:
        if key == name:
            return cast("bytes", value).decode("latin-1")
    return ""


def content_length(request: Request) -> int | None:
    """The body's length as announced, None where it is not."""
    text = header(request, b"content-length")
    return int(text) if text.isascii() and text.isdecimal() else None


def prefers_async(request: Request) -> bool:
    """Whether the client says that it will not wait (RFC 7240: ``Prefer: respond-async``)."""
    values = (value.decode("latin-1") for key, value in request.scope["headers"] if key == b"prefer")
    preferences = (preference.partition(";")[0].strip().lower() for each in values for preference in each.split(","))
    return "respond-async" in preferences


def peer(request: Request) -> str | None:
    """The address that the connection comes from."""
    client = request.scope.get("client")
    return client[0] if client else None


def bearer(request: Request, *, whose: str = "tenant key") -> str | None:
    """The bearer token, None where there is no Authorization header. Raises `Refusal` for any other scheme."""
    value = header(request, b"authorization")
    if not value:
        return None
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refusal(
            RefusalCode.UNKNOWN_KEY,
            "the Authorization header holds no bearer token",
            field="authorization",
            remedy=f"send the header 'Authorization: Bearer <{whose}>'",
        )
    return token.strip()
