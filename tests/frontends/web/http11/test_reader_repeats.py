"""Requests that repeat each other on one connection.

What is remembered of the first must never change what the next is.
"""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.frontends.web.http11.reader import Refusal, Request
from tests.frontends.web.http11.test_reader import Sent, meaning, sent_requests
from tests.support.reading import cut, events_of, head, new_reader, requests_of, singly


def bodies(*pieces: bytes) -> list[bytes]:
    return [request.body for request in requests_of(*pieces)]


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("behind", [b"", b"\r\n", b"\r\n\r\n"])
def test_empty_lines_around_repeated_requests_shift_nothing(before: bytes, behind: bytes) -> None:
    sent = [b"abcd", b"abcd", b"abce", b"xbcd", b"abcd"]
    assert bodies(*(before + head("Content-Length: 4") + body + behind for body in sent)) == sent
    assert (
        bodies(*(head("Content-Length: 4") + body + behind for body in sent), *singly(before))
        == sent
    )


@st.composite
def repetitions(draw: st.DrawFn) -> list[bytes]:
    """Draw segments that repeat a few requests, with other bodies of the same lengths."""
    framing = draw(st.sampled_from(["Content-Length", "chunked", "none"]))
    size = draw(st.integers(0, 4))
    letters = st.sampled_from([b"a", b"\r", b"\n"])
    around = st.sampled_from(
        [
            (b"", b""),
            (draw(st.sampled_from([b"", b"\r\n"])), draw(st.sampled_from([b"\r\n", b"\r"]))),
        ]
    )
    segments = []
    for _ in range(draw(st.integers(2, 6))):
        body = draw(st.lists(letters, min_size=size, max_size=size).map(b"".join))
        if framing == "Content-Length":
            data = head(f"Content-Length: {size}") + body
        elif framing == "chunked":
            data = (
                head("Transfer-Encoding: chunked")
                + (b"%x\r\n%b\r\n" % (size, body) if size else b"")
                + b"0\r\n\r\n"
            )
        else:
            data = head(line="GET /a HTTP/1.1")
        before, behind = draw(around)
        data = before + data + behind
        segments.append(
            data[: -draw(st.integers(1, 3))]
            if draw(st.sampled_from([False] * 5 + [True]))
            else data
        )
    return segments


@given(repetitions())
def test_repeated_requests_are_what_they_are_byte_by_byte(segments: list[bytes]) -> None:
    together = [_kind(event) for event in events_of(segments)]
    assert together == [_kind(event) for event in events_of(singly(b"".join(segments)))]


def _kind(event: object) -> object:
    return "refused" if isinstance(event, Refusal) else meaning(event)


@given(
    st.lists(sent_requests(), min_size=1, max_size=3),
    st.lists(st.integers(0, 2), min_size=2, max_size=8),
)
def test_requests_that_take_turns_are_what_they_are_alone(
    sent: list[Sent], order: list[int]
) -> None:
    chosen = [sent[index % len(sent)] for index in order]
    found = [
        meaning(event)
        for event in events_of([request.data for request in chosen])
        if isinstance(event, Request)
    ]
    assert found == [
        (request.method, request.target, request.headers, request.body, True, False)
        for request in chosen
    ]
    ends = list(accumulate(len(request.data) for request in chosen))
    whole = b"".join(request.data for request in chosen)
    again = [
        meaning(event)
        for event in events_of(cut(whole, [*ends, *order]))
        if isinstance(event, Request)
    ]
    assert again == found


@pytest.mark.parametrize(
    "changed",
    [
        head("Content-Length: 3") + b"abc",
        head("Content-Length: 4", line="POST /predicu HTTP/1.1") + b"abcd",
        head("Content-Length: 4", line="PUT /predict HTTP/1.1") + b"abcd",
        head("Content-length: 4") + b"abcd",
        head("Content-Length: 4", host="Host: i") + b"abcd",
        head("Content-Length: 4", "X-A: 1") + b"abcd",
    ],
)
def test_a_request_that_differs_a_little_is_read_for_what_it_is(changed: bytes) -> None:
    first = head("Content-Length: 4") + b"abcd"
    both = [meaning(event) for event in events_of([first, first, changed, first, changed, changed])]
    alone = [meaning(event) for event in events_of([changed])]
    assert [both[index] for index in (2, 4, 5)] == alone * 3


def test_what_was_sent_with_a_smuggled_length_is_still_refused_when_it_repeats() -> None:
    good = head("Content-Length: 4") + b"abcd"
    bad = head("Content-Length: 4", "Content-Length: 4") + b"abcd"
    assert [type(event) for event in events_of([good, good, bad, good])] == [
        Request,
        Request,
        Refusal,
    ]


def test_a_repetition_has_its_own_beginning() -> None:
    now = [1.0]
    reader = new_reader(seconds=lambda: now[0])
    data = head("Content-Length: 4") + b"abcd"
    (first,) = reader.feed(data)
    now[0] = 2.0
    (second,) = reader.feed(data)
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert (first.began, second.began) == (1.0, 2.0)


def test_a_repetition_cut_in_two_is_timed_and_limited_like_any_other() -> None:
    now = [1.0]
    reader = new_reader(seconds=lambda: now[0])
    data = head("Content-Length: 4") + b"abcd"
    reader.feed(data)
    reader.feed(data)
    now[0] = 5.0
    reader.feed(data[:10])
    assert reader.timed_out(19.0) is None
    assert reader.timed_out(21.0) is not None


def test_nothing_that_closed_or_was_refused_is_repeated() -> None:
    closing = head("Connection: close", "Content-Length: 4") + b"abcd"
    assert [type(event) for event in events_of([closing, closing])] == [Request]
    refused = head("Content-Length: 4", "Content-Encoding: br") + b"abcd"
    assert [type(event) for event in events_of([refused, refused])] == [Refusal]
