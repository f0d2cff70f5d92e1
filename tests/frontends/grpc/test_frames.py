"""Frames that pass by: the same boundaries and the same open calls, however the bytes are split."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.frontends.grpc.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NO_MORE_CALLS,
    PUSH_PROMISE,
    RESET,
    SETTINGS,
    FrameFollower,
)
from batcher.frontends.grpc.front import MAX_CONNECTION_CALLS, MAX_ENDED_CALLS
from batcher.frontends.grpc.open_calls import MAX_OPEN_CALLS, OpenCalls

Head = tuple[int, int, int]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    size = struct.pack(">I", len(payload))[1:]
    return size + struct.pack(">BBI", kind, flags, stream) + payload


KINDS = st.sampled_from([DATA, HEADERS, RESET, SETTINGS, PUSH_PROMISE, GOAWAY, CONTINUATION, 77])
FRAMES = st.lists(
    st.tuples(
        KINDS,
        st.sampled_from([0, END_STREAM, END_HEADERS, END_STREAM | END_HEADERS]),
        st.sampled_from([0, 1, 3, (1 << 31) - 1]),
        st.binary(max_size=40) | st.just(bytes(300)),
    ),
    max_size=12,
)
CUTS = st.sets(st.integers(1, 2000))


def heard_of(frames: list[tuple[int, int, int, bytes]]) -> list[Head]:
    """Return the heads of `frames` that may begin or end calls."""
    kinds = HEADERS, RESET, GOAWAY
    return [one[:3] for one in frames if one[0] in kinds or one[1] & END_STREAM]


def pieces_of(data: bytes, cuts: set[int]) -> list[bytes]:
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


def gaps_of(frames: list[tuple[int, int, int, bytes]]) -> set[int]:
    """Return where, in the bytes of `frames`, another frame may be put in."""
    gaps, place = set(), 0
    for kind, flags, stream, payload in frames:
        place += len(frame(kind, flags, stream, payload))
        if kind not in (HEADERS, PUSH_PROMISE, CONTINUATION) or flags & END_HEADERS:
            gaps.add(place)
    return gaps


@given(frames=FRAMES, cuts=CUTS)
def test_however_the_bytes_are_split_the_same_frames_are_heard(
    frames: list[tuple[int, int, int, bytes]], cuts: set[int]
) -> None:
    heard: list[Head] = []
    follower = FrameFollower(lambda *head: heard.append(head))
    place, gaps = 0, gaps_of(frames)
    for piece in pieces_of(b"".join(itertools.starmap(frame, frames)), cuts):
        follower.follow(piece)
        place += len(piece)
        assert follower.is_between_frames() == (place in gaps)
    assert heard == heard_of(frames)


@given(frames=FRAMES, cuts=CUTS, begin=st.integers(0, 12))
def test_a_gap_is_the_first_place_where_another_frame_may_stand(
    frames: list[tuple[int, int, int, bytes]], cuts: set[int], begin: int
) -> None:
    heard: list[Head] = []
    follower = FrameFollower(lambda *head: heard.append(head))
    place, gaps = 0, gaps_of(frames)
    for piece in pieces_of(b"".join(itertools.starmap(frame, frames)), cuts):
        if place >= begin:
            step = follower.follow_to_gap(piece)
            possible = [gap for gap in gaps if place <= gap <= place + len(piece)]
            assert step == (min(possible) - place if possible else len(piece))
            assert follower.is_between_frames() == bool(possible)
            piece, place = piece[step:], place + step
        follower.follow(piece)
        place += len(piece)
    assert heard == heard_of(frames)


def test_nothing_may_stand_before_the_servers_settings() -> None:
    follower = FrameFollower(lambda *_: None)
    assert not follower.is_between_frames()
    assert follower.follow_to_gap(frame(SETTINGS, payload=bytes(6)) + b"more") == 15


def test_the_reserved_bit_of_a_stream_is_no_part_of_its_number() -> None:
    heard: list[Head] = []
    FrameFollower(lambda *head: heard.append(head)).follow(frame(HEADERS, 0, 1 << 31 | 5))
    assert heard == [(HEADERS, 0, 5)]


def test_no_more_calls_is_a_goaway_that_no_call_is_too_late_for() -> None:
    assert frame(GOAWAY, payload=b"\x7f\xff\xff\xff" + bytes(4)) == NO_MORE_CALLS


@pytest.mark.parametrize(
    "end",
    [
        lambda calls: calls.answered(HEADERS, END_STREAM | END_HEADERS, 3),
        lambda calls: calls.answered(DATA, END_STREAM, 3),
        lambda calls: calls.answered(RESET, 0, 3),
        lambda calls: calls.asked(RESET, 0, 3),
    ],
)
def test_a_call_is_open_until_the_server_ends_it_or_either_side_resets_it(end: object) -> None:
    calls = OpenCalls()
    calls.asked(HEADERS, END_HEADERS, 1)
    calls.asked(HEADERS, END_HEADERS, 3)
    calls.asked(DATA, END_STREAM, 3)
    calls.answered(HEADERS, END_HEADERS, 3)
    calls.answered(SETTINGS, 1, 0)
    assert calls.numbers == {1, 3}
    assert callable(end)
    end(calls)
    end(calls)
    assert calls.numbers == {1}
    calls.asked(HEADERS, END_STREAM, 3)
    assert calls.numbers == {1}, "the last fields of a call begin no call"


def test_a_head_that_the_library_ignores_begins_no_call() -> None:
    calls = OpenCalls()
    for stream in (2, 5, 4, 3, 6):
        calls.asked(HEADERS, END_HEADERS, stream)
    assert calls.numbers == {5}


def test_a_client_has_a_bounded_number_of_calls_without_an_end() -> None:
    calls = OpenCalls()
    for number in range(MAX_OPEN_CALLS):
        calls.asked(HEADERS, END_HEADERS, 2 * number + 1)
    assert MAX_OPEN_CALLS > MAX_CONNECTION_CALLS + MAX_ENDED_CALLS
    assert not calls.are_too_many
    calls.asked(HEADERS, END_HEADERS, 2 * MAX_OPEN_CALLS + 1)
    assert calls.are_too_many
    calls.asked(RESET, 0, 1)
    assert not calls.are_too_many, "calls that are reset are not counted"


def test_a_client_that_the_library_has_told_need_not_be_told_again() -> None:
    calls = OpenCalls()
    assert not calls.are_last
    calls.answered(GOAWAY, 0, 0)
    assert calls.are_last
