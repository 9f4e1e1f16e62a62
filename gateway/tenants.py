"""Which tenant a request belongs to: by its key, or by the network it comes from."""

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from pydantic import TypeAdapter, ValidationError

from gateway.refusals import Refusal, RefusalCode
from gateway.settings import IPADDR, Network, TenantSettings
from schemas.messages import TenantName

_NAME: TypeAdapter[str] = TypeAdapter(TenantName)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's name, as messages carry it, and its settings."""

    name: str
    settings: TenantSettings


def check_tenants(tenants: Mapping[str, TenantSettings]) -> None:
    """Raise ValueError, naming the tenants at fault, unless every request has at most one tenant.

    At fault are: no tenant at all, a name that messages cannot carry, a key or a token for origins used twice, and two
    tenants without a key whose networks overlap.
    """
    if not tenants:
        raise ValueError("tenants: at least one is needed; leave the section out to get 'default'")
    for name in tenants:
        try:
            _NAME.validate_python(name)
        except ValidationError as error:
            raise ValueError(
                f"tenants.{name}: a name has 1 to 64 of a-z, 0-9, '-', '_' and starts with a letter or digit"
            ) from error
        if "__" in name or name.endswith("_"):
            raise ValueError(
                f"tenants.{name}: '__' and a '_' at the end would be split in FEDIWARDEN_TENANTS__... names"
            )
    for (one, first), (other, second) in combinations(tenants.items(), 2):
        if first.origins_token is not None and first.origins_token == second.origins_token:
            raise ValueError(
                f"tenants.{one}.origins_token and tenants.{other}.origins_token are the same: give each its own"
            )
        if first.key is not None and second.key is not None:
            if first.key.get_secret_value() == second.key.get_secret_value():
                raise ValueError(f"tenants.{one}.key and tenants.{other}.key are the same: give each its own")
        elif first.key is None and second.key is None and _overlap(first, second):
            raise ValueError(
                f"tenants.{one} and tenants.{other} have no key and overlapping networks:"
                " give one of them a key, or networks of its own"
            )


class Tenants:
    """The tenants of this gateway.

    Raises ValueError as `check_tenants` does. A key is compared with every tenant's, by digest and in constant time,
    so that the time of a refusal tells nothing about keys or their lengths.
    """

    def __init__(self, settings: Mapping[str, TenantSettings]) -> None:
        check_tenants(settings)
        tenants = [Tenant(name, each) for name, each in settings.items()]
        self._keyed = tuple(
            (_digest(tenant.settings.key.get_secret_value()), tenant)
            for tenant in tenants
            if tenant.settings.key is not None
        )
        self._keyless = tuple(tenant for tenant in tenants if tenant.settings.key is None)

    def identify(self, key: str | None, peer: str | None) -> Tenant:
        """The tenant of a request that carries `key` and comes from the address `peer`.

        None or the word IPADDR as key asks for the tenant of the network. Raises `Refusal`: unknown_key, or
        network_not_allowed.
        """
        if key is None or key == IPADDR:
            return self._by_network(peer, key)
        offered = _digest(key)
        found: Tenant | None = None
        for digest, tenant in self._keyed:
            if hmac.compare_digest(digest, offered):
                found = tenant
        if found is None:
            raise Refusal(
                RefusalCode.UNKNOWN_KEY,
                "no tenant has this key",
                field="key",
                remedy="compare it with tenants.<name>.key in the gateway's settings",
            )
        networks = found.settings.allowed_networks
        if networks is not None and not _within(peer, networks):
            raise _not_allowed(peer)
        return found

    def _by_network(self, peer: str | None, key: str | None) -> Tenant:
        for tenant in self._keyless:
            if _within(peer, tenant.settings.allowed_networks or ()):
                return tenant
        if key is None and not self._keyless:
            raise Refusal(
                RefusalCode.UNKNOWN_KEY,
                "this gateway needs a key",
                field="authorization",
                remedy="send the header 'Authorization: Bearer <tenant key>'",
            )
        raise _not_allowed(peer)


def _not_allowed(peer: str | None) -> Refusal:
    return Refusal(
        RefusalCode.NETWORK_NOT_ALLOWED,
        f"the address {peer or 'of this connection'} is in no network that may post here",
        field="client",
        remedy="add its network to tenants.<name>.networks, or give the tenant a key and send it",
    )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _within(peer: str | None, networks: Iterable[Network]) -> bool:
    if peer is None:
        return False
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    # A socket that listens on :: sees IPv4 clients as ::ffff:a.b.c.d.
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _overlap(first: TenantSettings, second: TenantSettings) -> bool:
    return any(
        one.version == other.version and one.overlaps(other)
        for one in first.allowed_networks or ()
        for other in second.allowed_networks or ()
    )
