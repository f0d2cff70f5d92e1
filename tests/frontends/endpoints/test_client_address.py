"""Who a client is, by its address."""

from __future__ import annotations

import pytest

from batcher.frontends.endpoints.client_address import client_of


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("192.0.2.1:5000", "192.0.2.1"),
        ("2001:db8:1:2::3:5000", "2001:0db8:0001:0002"),
        ("2001:db8:1:2:ffff::9:5000", "2001:0db8:0001:0002"),
        ("::ffff:192.0.2.1:5000", "192.0.2.1"),
        ("unix", ""),
        ("unix:", "unix"),
        ("", ""),
        ("a:b:c:1", "a:b:c"),
    ],
)
def test_connections_of_one_client_have_one_name(peer: str, client: str) -> None:
    assert client_of(peer) == client
