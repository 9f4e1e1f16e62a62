"""Fetching an address that a stranger names, without becoming a stranger's way into our network.

A name is resolved once, every address it has must be public (or allowed by `FetchLimits.networks`), and the
connection goes to one of those addresses, not to the name: what DNS says a moment later changes nothing. Redirects are
followed here, each as carefully as the first; no proxy of the environment is used, which would resolve names by itself.

It lives here since two services fetch (the gateway images, the audit contact addresses), and a guard of which there are
two copies is one that gets mended once.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urljoin, urlsplit

import httpcore
from pydantic import BaseModel, ConfigDict, Field

_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL_MOST = 4096

HTTP_TOO = frozenset({"http", "https"})
HTTPS_ALONE = frozenset({"https"})

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class FetchRefused(Exception):
    """The address is one that is not fetched from: its scheme, port or network; the message says which."""


class FetchFailed(Exception):
    """The other side does not give the file: unreachable, slow, too large, not 200; the message says which."""


class FetchAnswered(FetchFailed):
    """It answers something else than 200: `status`, with the value of its Retry-After, "" if there is none."""

    def __init__(self, status: int, retry_after: str) -> None:
        super().__init__(f"the other side answered {status}")
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What is fetched, and how much of it.

    `timeout_s` is for all of a fetch: names, connections, redirects, content. `networks` may be fetched from although
    they are not public. `setting` is the dotted name of the settings that these come from; refusals name it.
    """

    accept: str
    setting: str
    max_bytes: int
    timeout_s: float
    redirects: int
    ports: tuple[int, ...] = (80, 443)
    networks: tuple[Network, ...] = ()
    schemes: frozenset[str] = HTTP_TOO
    one_host: bool = False


class GuardedFetchSettings(BaseModel):
    """What an admin may set wherever something is fetched. Who fetches declares again what is otherwise there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(False, description="Whether anything is fetched.")
    timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(5.0, description="Seconds for each question.")
    max_bytes: Annotated[int, Field(ge=1024)] = Field(1 << 20, description="Largest answer read.")
    redirects: Annotated[int, Field(ge=0, le=5)] = Field(2, description="Redirects followed, over https alone.")
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field((443,), description="Ports connected to.")
    networks: tuple[Network, ...] = Field(
        (), description="Networks (CIDR) that may be asked although they are not public."
    )

    def as_limits(
        self, *, accept: str, setting: str, schemes: frozenset[str] = HTTPS_ALONE, one_host: bool = False
    ) -> FetchLimits:
        """The same, as `fetch` takes it."""
        return FetchLimits(
            accept=accept,
            setting=setting,
            max_bytes=self.max_bytes,
            timeout_s=self.timeout_s,
            redirects=self.redirects,
            ports=self.ports,
            networks=self.networks,
            schemes=schemes,
            one_host=one_host,
        )


@dataclass(frozen=True, slots=True)
class Fetched:
    """A response that has begun: `content` gives its body, at most `FetchLimits.max_bytes`."""

    content_type: str
    content: AsyncIterator[bytes]


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet, whichever way it is written.

    Not public are private, loopback, link-local (the clouds' metadata services), shared (carrier-grade NAT), multicast
    and reserved ones, and IPv6 addresses that stand for such an IPv4 address (mapped, 6to4, Teredo, NAT64).
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local or address.scope_id is not None:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _NAT64) or int(address) >> 32 == 0:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def check_url(url: str, limits: FetchLimits) -> tuple[str, int]:
    """Host and port of an address that may be tried. Raises `FetchRefused`."""
    if len(url) > _URL_MOST or not url.isascii() or any(each.isspace() or each < " " for each in url):
        raise FetchRefused("the address is too long, or has characters that no address has; percent-encode it")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise FetchRefused(f"this is no address: {error}") from error
    if parts.scheme not in limits.schemes or not host:
        allowed = " and ".join(f"{each}://" for each in sorted(limits.schemes))
        raise FetchRefused(f"only {allowed} addresses with a host are fetched")
    if "@" in parts.netloc:
        raise FetchRefused("an address with a user or a password is not fetched")
    port = port or (443 if parts.scheme == "https" else 80)
    if port not in limits.ports:
        raise FetchRefused(f"port {port} is not connected to; {limits.setting}.ports says which are")
    return host, port


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to an address that was checked; TLS still goes by the name."""

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as httpcore calls it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check every address, connect to the first that answers. Raises `FetchRefused`."""
        addresses = await self._resolve(host, port)
        last: Exception | None = None
        for address in addresses:
            try:
                return await self._inner.connect_tcp(
                    str(address), port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        assert last is not None
        raise last

    async def _resolve(self, host: str, port: int) -> list[Address]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0])) for entry in found))
        except (OSError, UnicodeError, ValueError) as error:
            raise httpcore.ConnectError(f"the name {host!r} has no address") from error
        for address in addresses:
            # One bad address among good ones is an attack, or a network where we have no business.
            if not self._is_allowed(address):
                allows = f"{self._limits.setting}.networks allows some"
                raise FetchRefused(f"it leads into a network that is not public; {allows}")
        return addresses

    def _is_allowed(self, address: Address) -> bool:
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        plain = mapped or address
        return is_public(address) or any(plain in network for network in self._limits.networks)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


@asynccontextmanager
async def fetch(url: str, limits: FetchLimits, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Fetched]:
    """Begin to fetch `url`; within `limits.timeout_s`, redirects, and what is done in the context, included.

    `tls` says whose certificates count; by default those that certifi trusts. Raises `FetchRefused` and `FetchFailed`,
    the latter also while the content is read.
    """
    headers_sent = (("accept", limits.accept), ("accept-encoding", "identity"), ("user-agent", "fediwarden"))
    try:
        async with (
            asyncio.timeout(limits.timeout_s),
            httpcore.AsyncConnectionPool(
                network_backend=_GuardedBackend(limits),
                ssl_context=tls,
                max_connections=1,
                max_keepalive_connections=0,
            ) as pool,
        ):
            host, _ = check_url(url, limits)
            for _ in range(limits.redirects + 1):
                if check_url(url, limits)[0] != host and limits.one_host:
                    raise FetchFailed("it redirects to another host")
                async with pool.stream("GET", url, headers=list(headers_sent)) as response:
                    headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
                    if response.status not in _REDIRECTS:
                        yield _take(response, headers, limits.max_bytes)
                        return
                    url = _follow(url, headers.get(b"location", ""))
            raise FetchFailed(f"more than {limits.redirects} redirects")
    except TimeoutError as error:
        raise FetchFailed(f"it took more than {limits.timeout_s:g} s") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
        raise FetchFailed(str(error)[:200] or type(error).__name__) from error


def _follow(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise FetchRefused(f"it redirects to what is no address: {error}") from error


def _take(response: httpcore.Response, headers: dict[bytes, str], most: int) -> Fetched:
    if response.status != 200:
        raise FetchAnswered(response.status, headers.get(b"retry-after", ""))
    if headers.get(b"content-encoding", "identity").lower() not in ("", "identity"):
        raise FetchFailed("the other side compresses what it was asked not to")
    length = headers.get(b"content-length", "")
    if length.isdecimal() and int(length) > most:
        raise FetchFailed(f"the file is larger than {most} bytes")
    return Fetched(headers.get(b"content-type", ""), _content(response, most))


async def _content(response: httpcore.Response, most: int) -> AsyncIterator[bytes]:
    taken = 0
    async for chunk in response.aiter_stream():
        taken += len(chunk)
        if taken > most:
            raise FetchFailed(f"the file is larger than {most} bytes")
        yield chunk
