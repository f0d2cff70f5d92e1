"""A body of up to 64 MiB as one kind each: plain, and behind the content codings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from benchmarks.hostile_kinds.kind import Attack, Kind
from benchmarks.hostile_kinds.wire import request, sending


class Body(NamedTuple):
    """A body, and where it is posted.

    Attributes:
        name: of the kind.
        path: that it is posted to.
        media_type: its `Content-Type`; none if empty.
        make: makes the body.
        fields: further fields of the head.
        codings: content codings behind which it is a kind too; one body of each format is.
    """

    name: str
    path: str
    media_type: str
    make: Callable[[], bytes]
    fields: Mapping[str, str] | None = None
    codings: tuple[str, ...] = ()


ALL_CODINGS = ("gzip", "deflate")


def kinds_of(bodies: tuple[Body, ...]) -> Iterator[Kind]:
    """Return the kinds of `bodies`: each as it is, and behind each of its codings."""
    for body in bodies:
        for coding in ("", *body.codings):
            name = f"{body.name} {coding}".strip()
            yield Kind(name, partial(_prepare, body, coding))


def _prepare(body: Body, coding: str) -> Attack:
    data = request(body.path, body.make(), body.media_type, coding=coding, fields=body.fields)
    return sending(data)
