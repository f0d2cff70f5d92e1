"""`saved_model.pb` as TensorFlow writes it, as far as its signatures go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DTYPES = {"FP32": 1, "INT32": 3, "BYTES": 7, "COMPLEX64": 8, "INT64": 9}
"""TensorFlow's number of each datatype."""

Tensor = tuple[str, Sequence[int] | None]
"""Datatype, and sizes of all axes; None for a shape that is not known."""

Tensors = Mapping[str, Tensor]


def field(number: int, content: bytes | str | int) -> bytes:
    """Return a field of a message: a number, a text or a message."""
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content & ((1 << 64) - 1))
    content = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def tensor_info(dtype: str, shape: Sequence[int] | None) -> bytes:
    """Return the message of one tensor."""
    axes = field(3, 1) if shape is None else b"".join(field(2, field(1, size)) for size in shape)
    return field(1, "op:0") + field(2, DTYPES[dtype]) + field(3, axes)


def signature(inputs: Tensors, outputs: Tensors) -> bytes:
    """Return the message of a signature."""
    return b"".join(
        field(number, field(1, name) + field(2, tensor_info(*tensor)))
        for number, tensors in ((1, inputs), (2, outputs))
        for name, tensor in tensors.items()
    )


def graph(signatures: Mapping[str, bytes], *tags: str) -> bytes:
    """Return the message of a graph with its signatures."""
    info = field(1, b"".join(field(4, tag) for tag in tags))
    named = (field(5, field(1, name) + field(2, each)) for name, each in signatures.items())
    return info + field(2, b"") + b"".join(named)


def saved_model(signatures: Mapping[str, bytes]) -> bytes:
    """Return a file with one graph, to serve."""
    return field(1, 1) + field(2, graph(signatures, "serve"))


X, Y = {"x": ("FP32", (-1, 4))}, {"y": ("FP32", (-1, 3))}
PLAIN = saved_model({"serving_default": signature(X, Y)})
"""A model from `x`, of four numbers, to `y`, of three."""
