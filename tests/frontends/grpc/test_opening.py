"""What passes of a client's first bytes: whole frames, split anywhere by the network."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.frontends.grpc.opening import (
    MAX_FRAME_BYTES,
    MAX_HELD_BYTES,
    MAX_SETTINGS_BYTES,
    PREFACE,
    BadOpening,
    Opening,
)

DATA, HEADERS, SETTINGS, PING, CONTINUATION = 0, 1, 4, 6, 9


def frame(kind: int, stream: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    size = struct.pack(">I", len(payload))[1:]
    return size + struct.pack(">BBI", kind, flags, stream) + payload


ACKNOWLEDGED = frame(SETTINGS, flags=1)
OWN_SETTINGS = frame(SETTINGS, payload=bytes(6))
CALL = frame(HEADERS, 1, b"head") + frame(DATA, 1, b"message")


def passed(opening: Opening, *pieces: bytes, spoken: bool = True) -> bytes:
    """Return what passes of `pieces`, which come one by one."""
    return b"".join(b"".join(opening.receive(piece, spoken)) for piece in pieces)


def test_settings_pass_at_once_and_calls_once_the_servers_settings_are_acknowledged() -> None:
    opening = Opening()
    assert passed(opening, PREFACE + OWN_SETTINGS + CALL) == PREFACE + OWN_SETTINGS
    assert not opening.over
    ping = frame(PING, payload=bytes(8))
    assert passed(opening, CALL + ping) == ping
    assert passed(opening, ACKNOWLEDGED + ping) == ACKNOWLEDGED + CALL * 2 + ping
    assert opening.over


def test_a_client_that_acknowledges_first_is_not_held_up() -> None:
    opening = Opening()
    rest = CALL + frame(DATA, 3, b"a")[:-1]
    everything = PREFACE + OWN_SETTINGS + ACKNOWLEDGED + rest
    assert passed(opening, everything) == everything
    assert opening.over


FRAMES = st.lists(
    st.builds(
        frame,
        st.sampled_from([DATA, HEADERS, SETTINGS, PING, CONTINUATION, 77]),
        st.sampled_from([0, 1, 3, 1 << 31, 1 << 31 | 5]),
        st.binary(max_size=40),
    ),
    max_size=12,
)


@given(before=FRAMES, after=st.binary(max_size=100), cuts=st.sets(st.integers(1, 600)))
def test_however_the_bytes_are_split_the_same_passes_and_nothing_is_lost(
    before: list[bytes], after: bytes, cuts: set[int]
) -> None:
    everything = PREFACE + b"".join(before) + ACKNOWLEDGED + after
    places = [0, *sorted(cut for cut in cuts if cut < len(everything)), len(everything)]
    pieces = [everything[a:b] for a, b in itertools.pairwise(places)]
    opening, out = Opening(), b""
    for piece in pieces:
        out += piece if opening.over else b"".join(opening.receive(piece, True))
    of_calls = [one for one in before if one[5:9] not in (bytes(4), b"\x80\0\0\0")]
    others = [one for one in before if one not in of_calls]
    assert out == PREFACE + b"".join(others) + ACKNOWLEDGED + b"".join(of_calls) + after


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "the preface"),
        (b"PRX", "the preface"),
        (PREFACE + frame(HEADERS, 1, bytes(MAX_FRAME_BYTES + 1)), "at most 16384 bytes"),
        (PREFACE + b"\xff\xff\xff\0\0\0\0\0\0", "at most 16384 bytes; got 16777215"),
        (PREFACE + frame(DATA, 1, bytes(1 << 14)) * 7, f"more than {MAX_HELD_BYTES} bytes"),
        (PREFACE + frame(DATA, 1) * (MAX_HELD_BYTES // 64), f"more than {MAX_HELD_BYTES}"),
        (PREFACE + OWN_SETTINGS * 5000, f"more than {MAX_SETTINGS_BYTES} bytes"),
        (PREFACE + frame(SETTINGS) * 1000, f"more than {MAX_SETTINGS_BYTES} bytes"),
    ],
)
def test_what_no_honest_client_sends_ends_the_connection(sent: bytes, reason: str) -> None:
    with pytest.raises(BadOpening, match=reason):
        Opening().receive(sent, True)


def test_settings_cannot_be_acknowledged_before_they_were_sent() -> None:
    with pytest.raises(BadOpening, match="before the settings"):
        Opening().receive(PREFACE + OWN_SETTINGS + ACKNOWLEDGED + CALL, False)


def test_what_an_honest_client_may_send_early_is_held() -> None:
    opening = Opening()
    window = frame(DATA, 1, bytes(MAX_FRAME_BYTES)) * 3 + frame(DATA, 1, bytes((1 << 14) - 1))
    heads = b"".join(frame(HEADERS, stream, bytes(200)) for stream in range(1, 200, 2))
    assert passed(opening, PREFACE + heads + window) == PREFACE
    assert passed(opening, ACKNOWLEDGED) == ACKNOWLEDGED + heads + window
