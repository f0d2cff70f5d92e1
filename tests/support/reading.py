"""Feeding bytes to a `RequestReader`: in one piece, in several pieces, or byte by byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

from batcher.errors import BatcherError
from batcher.frontends.web.http11.heads import SharedHeads
from batcher.frontends.web.http11.reader import Event, Refusal, Request, RequestReader
from batcher.frontends.web.limits import Limits

LIMITS = Limits(
    body=4096,
    uri=256,
    header=1024,
    header_timeout=15.0,
    body_timeout=30.0,
    body_rate=1000,
    idle_timeout=75.0,
    write_timeout=60.0,
    buffers=1 << 20,
    connections=4,
    connection_age=0,
    pipelined=4,
)


def new_reader(
    limits: Limits = LIMITS,
    seconds: Callable[[], float] = lambda: 0.0,
) -> RequestReader:
    """Return a reader at the beginning of a connection."""
    return RequestReader(limits, seconds, SharedHeads())


def events_of(pieces: Iterable[bytes], limits: Limits = LIMITS) -> list[Event]:
    """Return what a new reader makes of `pieces`."""
    reader = new_reader(limits)
    return [event for piece in pieces for event in fed(reader, piece)]


def fed(reader: RequestReader, piece: bytes) -> list[Event]:
    """Return what `reader` makes of `piece`, in as many slices as it takes."""
    events = reader.feed(piece)
    while rest := reader.rest:
        reader.rest = b""
        events += reader.feed(rest)
    return events


def requests_of(*pieces: bytes) -> list[Request]:
    """Return the requests in `pieces`, of which none may be refused."""
    events = events_of(pieces)
    refusals = [event.error for event in events if isinstance(event, Refusal)]
    assert not refusals, refusals
    return [event for event in events if isinstance(event, Request)]


def refusal_of(*pieces: bytes) -> BatcherError:
    """Return why `pieces` are refused; nothing else may be made of them."""
    events = events_of(pieces)
    assert [type(event) for event in events] == [Refusal], events
    assert isinstance(events[0], Refusal)
    return events[0].error


def singly(data: bytes) -> list[bytes]:
    """Return `data` in pieces of one byte."""
    return [data[index : index + 1] for index in range(len(data))]


def cut(data: bytes, points: Iterable[int]) -> list[bytes]:
    """Return `data` cut at `points`, which may be any numbers."""
    places = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    return [data[start:end] for start, end in pairwise(places)]


def head(*fields: str, line: str = "POST /predict HTTP/1.1", host: str = "Host: h") -> bytes:
    """Return a request's head with `fields` as they are."""
    return "\r\n".join([line, *([host] if host else []), *fields, "", ""]).encode("latin-1")
