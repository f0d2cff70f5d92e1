"""Which addresses of a network a name may stand for that a client has chosen.

Who owns a name chooses its addresses, and may choose those of this machine, of the network around
it, or of the cloud's metadata service, which hands out credentials.

| address | may be asked |
|---|---|
| public | yes |
| of a private network, or of this machine | where the operator says so for the prefix |
| link-local, of a metadata service, multicast, `0.0.0.0` | never |

An address of IPv6 that stands for one of IPv4 (`::ffff:127.0.0.1`, 6to4, NAT64) counts as both.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address

_METADATA: Final = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # AWS, Google, Azure: link-local, and here by name
            "fd00:ec2::254",  # AWS
            "168.63.129.16",  # Azure: a public address that only its own machines reach
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
        ),
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE: Final = IPv6Network("::/96")
_THIS_NETWORK: Final = IPv4Network("0.0.0.0/8")


def is_public(address: Address) -> bool:
    """Return whether `address` is one of the public network, read in every way."""
    return not is_never_asked(address) and all(map(_is_public, _readings(address)))


def _is_public(address: Address) -> bool:
    is_local = isinstance(address, IPv6Address) and (
        address.is_site_local or address in _LOCAL_NAT64
    )
    return address.is_global and not is_local


def is_never_asked(address: Address) -> bool:
    """Return whether no operator can mean `address`, read in any way."""
    for each in _readings(address):
        if each.is_link_local or each.is_multicast or each in _METADATA:
            return True
        if each.is_unspecified or (isinstance(each, IPv4Address) and each in _THIS_NETWORK):
            return True
    return False


def _readings(address: Address) -> list[Address]:
    """Return the addresses that `address` may stand for."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]  # such an address is that of IPv4, and nothing else
    found: list[Address] = [address]
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    # `::1` is this machine, and not 0.0.0.1.
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        found.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return found
