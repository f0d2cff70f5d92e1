"""Who may connect over ZeroMQ."""

from __future__ import annotations

import pytest

from batcher.frontends.zeromq.admission import Admission

KEY = bytes(range(32))


def question(
    *credentials: bytes, mechanism: bytes = b"CURVE", version: bytes = b"1.0"
) -> list[bytes]:
    """Return what the library asks."""
    return [version, b"7", b"batcher", b"127.0.0.1", b"", mechanism, *credentials]


@pytest.mark.parametrize(
    ("keys", "asked", "status"),
    [
        (None, question(mechanism=b"NULL"), b"200"),
        (None, question(KEY), b"200"),
        (frozenset([KEY]), question(KEY), b"200"),
        (frozenset([KEY]), question(bytes(32)), b"400"),
        (frozenset([KEY]), question(mechanism=b"NULL"), b"400"),
        (frozenset([KEY]), question(), b"400"),
        (frozenset(), question(KEY), b"400"),
        (None, question(version=b"2.0"), b"500"),
        (None, [b"1.0", b"7"], b"500"),
        (None, [], b"500"),
    ],
)
def test_a_client_is_let_in_by_its_key(
    keys: frozenset[bytes] | None, asked: list[bytes], status: bytes
) -> None:
    answer = Admission(lambda: True, keys).answer(asked)
    assert answer[:3] == [b"1.0", asked[1] if len(asked) > 1 else b"", status]
    assert len(answer) == 6


def test_a_full_server_lets_nobody_in() -> None:
    assert Admission(lambda: False, None).answer(question(mechanism=b"NULL"))[2] == b"400"
