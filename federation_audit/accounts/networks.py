"""The network of a client: what is counted and logged in place of an address."""

import ipaddress

_IPV4_BITS = 24
_IPV6_BITS = 48


def network_of(address: str | None) -> str:
    """The /24 or /48 that `address` is in; empty for this machine, and for what is no address (a Unix socket)."""
    try:
        ip = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    # A socket that listens on :: sees IPv4 clients as ::ffff:a.b.c.d.
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return ""
    return str(ipaddress.ip_network(f"{ip}/{_IPV4_BITS if ip.version == 4 else _IPV6_BITS}", strict=False))
