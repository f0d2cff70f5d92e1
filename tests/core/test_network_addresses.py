"""Which addresses of a network may be asked for a client."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from batcher.core.network_addresses import is_never_asked, is_public

PUBLIC = ("93.184.215.14", "2606:2800:21f:cb07::1", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e")
PRIVATE = (
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "fd00::1",
    "fec0::1",
    "::ffff:127.0.0.1",
    "::7f00:1",
    "2002:7f00:1::",
    "2002:a01:203::1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::808:808",
    "2001:db8::1",
)
NEVER = (
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "169.254.169.254",
    "169.254.0.1",
    "::ffff:169.254.169.254",
    "2002:a9fe:a9fe::",
    "64:ff9b::a9fe:a9fe",
    "fe80::1",
    "fd00:ec2::254",
    "168.63.129.16",
    "100.100.100.200",
    "224.0.0.1",
    "ff02::1",
)


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_may_be_asked(text: str) -> None:
    assert is_public(ip_address(text))
    assert not is_never_asked(ip_address(text))


@pytest.mark.parametrize("text", PRIVATE)
def test_a_private_one_in_any_form_only_if_the_operator_says_so(text: str) -> None:
    assert not is_public(ip_address(text))
    assert not is_never_asked(ip_address(text))


@pytest.mark.parametrize("text", NEVER)
def test_link_local_and_metadata_addresses_never(text: str) -> None:
    assert not is_public(ip_address(text))
    assert is_never_asked(ip_address(text))
