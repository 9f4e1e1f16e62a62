"""Where a list's hashes come from: a file, an address on the web (another fediwarden's among them), an exchange."""

import os
from pathlib import Path

import httpx

from gateway.lists.definition import ListDefinition
from gateway.lists.errors import ListInvalid, SourceFailed
from gateway.lists.exchanges import PREFIX, fetch_exchange
from gateway.lists.files import Parsed, parse_list

_TIMEOUT_S = 30.0
_BYTES_PER_HASH = 200
_BYTES_ALWAYS = 1 << 20
_CHUNK = 1 << 18


def fetch_hashes(definition: ListDefinition, *, most: int) -> Parsed:
    """The hashes that a list's source gives now; at most `most`. Blocks, for long perhaps.

    Raises `SourceFailed` or `gateway.lists.errors.ListInvalid`.
    """
    source = definition.source
    if not source:
        raise SourceFailed(f"list {definition.name}: it is made of our own decisions and has no source to read")
    if source.startswith(PREFIX):
        return fetch_exchange(source, most=most)
    data = _download(definition, most) if source.startswith(("http://", "https://")) else _read(Path(source), most)
    return parse_list(data, source, kind=definition.kind, most=most)


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_most_bytes(most) + 1)
    except OSError as error:
        raise SourceFailed(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _most_bytes(most):
        raise ListInvalid(str(path), f"larger than {_most_bytes(most)} bytes", remedy=_remedy(most))
    return data


def _download(definition: ListDefinition, most: int) -> bytes:
    url = definition.source
    headers = {"accept": "application/json, text/csv, text/plain"}
    if definition.token_env:
        token = os.environ.get(definition.token_env, "")
        if not token:
            raise SourceFailed(f"{url}: the environment variable {definition.token_env} with its token is not set")
        headers["authorization"] = f"Bearer {token}"
    data = bytearray()
    try:
        # No redirects: the token is for this address.
        with httpx.stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
            if response.status_code != httpx.codes.OK:
                raise SourceFailed(f"{url}: answered {response.status_code}{_why(response)}")
            for chunk in response.iter_bytes(_CHUNK):
                data += chunk
                if len(data) > _most_bytes(most):
                    raise ListInvalid(url, f"larger than {_most_bytes(most)} bytes", remedy=_remedy(most))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceFailed(f"{url}: {str(error) or type(error).__name__}") from error
    return bytes(data)


def _why(response: httpx.Response) -> str:
    if response.status_code in (401, 403):
        return "; name the variable that holds a valid token with --token-env"
    if response.is_redirect:
        return f" and leads to {response.headers.get('location', '')[:200]}; give that address"
    return ""


def _most_bytes(most: int) -> int:
    return _BYTES_ALWAYS + most * _BYTES_PER_HASH


def _remedy(most: int) -> str:
    return f"a list has at most {most} hashes (gateway.lists.max_hashes)"
