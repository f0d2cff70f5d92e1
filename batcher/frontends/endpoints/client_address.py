"""Who a client is, by its address, where clients share something fairly."""

from __future__ import annotations

from ipaddress import IPv6Address


def client_of(peer: str) -> str:
    """Return what `peer`, an address with its port, has in common with its other connections.

    That is the address of IPv4, or the network of 64 bits of IPv6, from which one client may take
    any address. A peer on a Unix socket has neither, and is one client with all others there.

    Args:
        peer: as `192.0.2.1:5000` or `2001:db8::1:5000`.
    """
    host = peer.rpartition(":")[0]
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host)
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex(":", 2)
