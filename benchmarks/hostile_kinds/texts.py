"""Bodies of text at their worst: JSON and CSV."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.hostile_kinds.bodies import ALL_CODINGS, Body
from benchmarks.hostile_kinds.kind import LIMIT, repeated

FLOATS, TEXTS, TABLE = (f"/models/{name}/predict" for name in ("floats", "texts", "table"))
TF_FLOATS = "/v1/models/floats:predict"
JSON, CSV = "application/json", "text/csv"
INPUTS, END = b'{"inputs":{"x":[[', b"]]}}"
INSTANCES, END_INSTANCES = b'{"instances":[', b"]}"


def numbered(head: bytes, unit: bytes, tail: bytes) -> bytes:
    """Return `head`, units with a number in them up to the limit, separated by commas, `tail`."""
    size = len(unit % 0) + 1
    count = (LIMIT - len(head) - len(tail)) // (size + 8)
    return head + b",".join([unit % number for number in range(count)]) + tail


def pattern(unit: bytes) -> bytes:
    """Return as many `unit`s as 64 MiB hold, and nothing else."""
    return unit * (LIMIT // len(unit))


def rectangle(cell: bytes, columns: int) -> bytes:
    """Return lines of so many equal cells, up to 64 MiB."""
    return pattern(b",".join([cell] * columns) + b"\n")


def _json(
    name: str, make: Callable[[], bytes], path: str = FLOATS, codings: tuple[str, ...] = ()
) -> Body:
    return Body(f"json_{name}", path, JSON, make, codings=codings)


def _csv(
    name: str, make: Callable[[], bytes], path: str = FLOATS, codings: tuple[str, ...] = ()
) -> Body:
    return Body(f"csv_{name}", path, CSV, make, codings=codings)


NEST = b"[" * 100 + b"]" * 100
DICT_ROW = b'{"x":[0]}'

JSON_BODIES = (
    _json("ints", partial(repeated, INPUTS, b"0", END), codings=ALL_CODINGS),
    _json("floats", partial(repeated, INPUTS, b"0.1234567890123456", END)),
    _json("rows", partial(repeated, INPUTS[:-1], b"[0]", END[1:])),
    _json("rows of 64", partial(repeated, INPUTS[:-1], b"[" + b"0," * 63 + b"0]", END[1:])),
    _json("instances", partial(repeated, INSTANCES, DICT_ROW, END_INSTANCES), codings=ALL_CODINGS),
    _json("strings", partial(repeated, INPUTS, b'""', END), TEXTS, ALL_CODINGS),
    _json("distinct strings", partial(numbered, INPUTS, b'"%d"', END), TEXTS),
    _json("escapes", partial(repeated, INPUTS + b'"', rb"\u0001", b'"' + END, b""), TEXTS),
    _json("deep", partial(pattern, b"[")),
    _json("nests", partial(repeated, INPUTS, NEST, END)),
    _json("empty lists", partial(repeated, INPUTS, b"[]", END)),
    _json("empty maps", partial(repeated, INPUTS, b"{}", END)),
    _json("long number", partial(repeated, INPUTS, b"7", END, b"")),
    _json("numbers of 1000 digits", partial(repeated, INPUTS, b"1." + b"7" * 998, END)),
    _json("keys", partial(numbered, b'{"inputs":{', b'"k%d":0', b"}}")),
    _json("one key", partial(repeated, b'{"inputs":{', b'"x":0', b"}}")),
    _json("NaN at the end", partial(repeated, INPUTS, b"0", b",NaN" + END)),
    _json("spaces", partial(repeated, b"", b" ", b"{}", b"")),
    Body(
        "json_utf16",
        FLOATS,
        "application/json; charset=utf-16",
        lambda: repeated(INPUTS, b"0", END, limit=LIMIT // 2 - 1).decode().encode("utf-16"),
    ),
)

TF_BODIES = (
    Body(
        "tf_instances",
        TF_FLOATS,
        JSON,
        partial(repeated, INSTANCES, b"[0]", END_INSTANCES),
        codings=ALL_CODINGS,
    ),
    Body("tf_dicts", TF_FLOATS, JSON, partial(repeated, INSTANCES, DICT_ROW, END_INSTANCES)),
    Body("tf_columns", TF_FLOATS, JSON, partial(repeated, b'{"inputs":[[', b"0", b"]]}")),
    Body(
        "tf_base64",
        "/v1/models/texts:predict",
        JSON,
        partial(repeated, INSTANCES, b'[{"b64":""}]', END_INSTANCES),
    ),
)

CSV_BODIES = (
    _csv("rows of 64", partial(rectangle, b"0", 64), codings=ALL_CODINGS),
    _csv("one column", partial(pattern, b"0\n")),
    _csv("digits", partial(rectangle, b"0.1234567890123456", 64)),
    _csv("one line", partial(repeated, b"", b"0", b"\n")),
    _csv("quoted", partial(rectangle, b'"0"', 64), codings=ALL_CODINGS),
    _csv("quotes", partial(repeated, b'"', b'""', b'"\n', b""), TEXTS),
    _csv("open quote", partial(repeated, b'"', b"a", b"", b""), TEXTS),
    _csv("strings", partial(rectangle, b"ab", 64), TEXTS),
    _csv("one column of strings", partial(pattern, b"a\n"), TEXTS),
    _csv("empty lines", partial(pattern, b"\n")),
    _csv("carriage returns", partial(pattern, b"\r\n")),
    _csv("commas", partial(pattern, b",")),
    _csv("names", partial(repeated, b"", b"a", b"\n1\n")),
    _csv("ragged", partial(pattern, b"0\n0,0\n")),
    _csv("table", lambda: b"a,b,c,d\n" + rectangle(b"0", 4)[: LIMIT - 8], TABLE),
    _csv("wide table", partial(repeated, b"a,b,c,d\n", b"0", b"\n"), TABLE),
)
