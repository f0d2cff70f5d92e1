"""The Open Inference Protocol over HTTP at its worst: JSON data and binary tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.hostile_kinds.bodies import ALL_CODINGS, Body
from benchmarks.hostile_kinds.kind import LIMIT, repeated
from benchmarks.hostile_kinds.texts import JSON, numbered

FLOATS, TEXTS = (f"/v2/models/{name}/infer" for name in ("floats", "texts"))
LENGTH = "Inference-Header-Content-Length"


def tensor_of(datatype: str, shape: str, ending: str = "") -> bytes:
    """Return the beginning of a body with one input, up to its data."""
    return f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape}{ending}'.encode()


def data_of(datatype: str, unit: bytes, per_unit: int = 1) -> bytes:
    """Return one input whose JSON data fill 64 MiB with `unit`, each so many elements."""
    end = b"]}]}"
    count = (LIMIT - 200) // (len(unit) + 1)
    head = tensor_of(datatype, f"[1,{count * per_unit}]", ',"data":[')
    return head + (unit + b",") * (count - 1) + unit + end


def binary(name: str, head: bytes, data: Callable[[], bytes]) -> Body:
    """Return a body with a JSON head and `data` behind it."""
    path = TEXTS if b"BYTES" in head else FLOATS
    return Body(
        name,
        path,
        "application/octet-stream",
        lambda: head + data(),
        {LENGTH: str(len(head))},
        codings=ALL_CODINGS if name == "oip_binary" else (),
    )


def _binary_head(datatype: str, shape: str, nbytes: int) -> bytes:
    parameters = f',"parameters":{{"binary_data_size":{nbytes}}}}}]}}'
    return tensor_of(datatype, shape, parameters)


_NBYTES = LIMIT - 256
_SHAPE = f"[1,{_NBYTES // 4}]"
_INPUT = b'{"name":"x","datatype":"FP32","shape":[1,1],"data":[0]}'
_EMPTY = b'{"name":"x","datatype":"FP32","shape":[0],"parameters":{"binary_data_size":0}}'
_ZERO = b'{"inputs":[' + _INPUT + b"]"

OIP_BODIES = (
    Body("oip_ints", FLOATS, JSON, partial(data_of, "FP32", b"0"), codings=ALL_CODINGS),
    Body("oip_floats", FLOATS, JSON, partial(data_of, "FP32", b"0.1234567890123456")),
    Body("oip_rows", FLOATS, JSON, partial(data_of, "FP32", b"[0]")),
    Body("oip_strings", TEXTS, JSON, partial(data_of, "BYTES", b'""')),
    Body("oip_wrong_type", FLOATS, JSON, partial(data_of, "FP32", b'""')),
    Body("oip_inputs", FLOATS, JSON, partial(repeated, b'{"inputs":[', _INPUT, b"]}")),
    Body(
        "oip_shape",
        FLOATS,
        JSON,
        partial(repeated, tensor_of("FP32", "[1"), b",1", b'],"data":[0]}]}', b""),
    ),
    Body(
        "oip_large_shape",
        FLOATS,
        JSON,
        partial(repeated, tensor_of("FP32", "[9"), b",999999999", b'],"data":[0]}]}', b""),
    ),
    Body(
        "oip_parameters",
        FLOATS,
        JSON,
        partial(numbered, _ZERO + b',"parameters":{', b'"k%d":0', b"}}"),
    ),
    Body(
        "oip_outputs",
        FLOATS,
        JSON,
        partial(repeated, _ZERO + b',"outputs":[', b'{"name":"y"}', b"]}"),
    ),
    Body("oip_id", FLOATS, JSON, partial(repeated, _ZERO + b',"id":"', b"a", b'"}', b"")),
    binary("oip_binary", _binary_head("FP32", _SHAPE, _NBYTES), lambda: bytes(_NBYTES)),
    binary(
        "oip_binary_bytes",
        _binary_head("BYTES", _SHAPE, _NBYTES),
        lambda: bytes(_NBYTES),
    ),
    binary("oip_binary_inputs", repeated(b'{"inputs":[', _EMPTY, b"]}"), bytes),
)
