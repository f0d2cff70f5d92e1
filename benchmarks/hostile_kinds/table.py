"""All kinds of hostile clients, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.hostile_kinds.answers import ANSWER_KINDS
from benchmarks.hostile_kinds.binaries import FORM_BODIES, MSGPACK_BODIES, OTHER_BODIES
from benchmarks.hostile_kinds.bodies import kinds_of
from benchmarks.hostile_kinds.embeddings import EMBEDDING_BODIES
from benchmarks.hostile_kinds.grpc_calls import GRPC_KINDS
from benchmarks.hostile_kinds.heads import FRAMING_KINDS, HEAD_KINDS
from benchmarks.hostile_kinds.kind import Kind
from benchmarks.hostile_kinds.pictures import PICTURE_BODIES
from benchmarks.hostile_kinds.protocols import OIP_BODIES
from benchmarks.hostile_kinds.texts import CSV_BODIES, JSON_BODIES, TF_BODIES

BODIES = (
    *JSON_BODIES,
    *TF_BODIES,
    *CSV_BODIES,
    *MSGPACK_BODIES,
    *OTHER_BODIES,
    *OIP_BODIES,
    *FORM_BODIES,
    *PICTURE_BODIES,
    *EMBEDDING_BODIES,
)

STREAMS = (
    "json_ints",
    "json_instances gzip",
    "csv_rows of 64",
    "csv_quoted gzip",
    "msgpack_maps",
    "oip_ints gzip",
    "octets",
    "form_pictures",
    "picture_jpeg",
    "picture_500 scans",
    "embeddings_small lists",
    "embeddings_answer base64",
)
"""Kinds of bodies that are also tried by CLIENTS at a time."""

CLIENTS = 8


def all_kinds() -> list[Kind]:
    """Return every kind there is."""
    bodies = list(kinds_of(BODIES))
    return [*bodies, *_streams(bodies), *ANSWER_KINDS, *HEAD_KINDS, *FRAMING_KINDS, *GRPC_KINDS]


def _streams(bodies: list[Kind]) -> Iterator[Kind]:
    by_name = {kind.name: kind for kind in bodies}
    for name in STREAMS:
        yield Kind(f"stream_{name}", by_name[name].prepare, CLIENTS)
