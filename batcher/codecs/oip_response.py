"""Answers of the Open Inference Protocol: JSON tensors, binary tensors behind the JSON, and classes in place of scores.

What is absent is left out, not null; data are flat; a JSON tensor carries no `parameters`, since clients in C++ take any for
`binary_data_size`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from batcher.codecs.content import Buffer
from batcher.codecs.json_lists import text_of, to_json
from batcher.codecs.octet_stream import output_bytes
from batcher.codecs.oip_bytes import to_elements
from batcher.codecs.oip_request import InferHead, WantedOutput
from batcher.codecs.predictions import numbers
from batcher.request import InferenceResponse
from batcher.spec import Array


class Encoded(NamedTuple):
    """The body of an answer.

    Attributes:
        body: JSON, and the binary tensors behind it.
        json_length: bytes of the JSON where binary tensors follow it, else None.
    """

    body: bytes
    json_length: int | None


def encode(response: InferenceResponse, head: InferHead) -> Encoded:
    """Return the answer that carries `response`, as `head` asks for it."""
    document: dict[str, Any] = {"id": head.id} if head.id else {}
    document |= {"model_name": response.model, "model_version": response.version}
    pieces: list[Buffer] = [b""]
    document["outputs"] = [_output(wanted, response, pieces) for wanted in head.outputs]
    text = to_json(document)
    if not any(wanted.binary for wanted in head.outputs):
        return Encoded(text, None)
    pieces[0] = text
    return Encoded(b"".join(pieces), len(text))


def _output(wanted: WantedOutput, response: InferenceResponse, pieces: list[Buffer]) -> dict[str, Any]:
    """Return the entry of one output; its bytes, if they are wanted, are put behind `pieces`."""
    tensor = wanted.tensor
    array = response.outputs[tensor.name]
    datatype = tensor.datatype.name
    if wanted.classes:
        names = tensor.labels.names if tensor.labels is not None else ()
        array, datatype = best_classes(numbers(array, datatype), wanted.classes, names), "BYTES"
    entry: dict[str, Any] = {"name": tensor.name, "datatype": datatype, "shape": array.shape}
    if not wanted.binary:
        entry["data"] = _flat(array, datatype)
        return entry
    data = to_elements(array) if datatype == "BYTES" else output_bytes(response, tensor)
    entry["parameters"] = {"binary_data_size": len(data)}
    pieces.append(data)
    return entry


def best_classes(scores: Array, count: int, names: tuple[str, ...]) -> Array:
    """Return each row's `count` best classes, the best first, as `value:index` or `value:index:label`.

    Args:
        scores: shape (rows, *classes); the classes of a row are counted over all its axes.
        count: how many; no more than there are.
        names: labels of the last axis.

    Returns:
        An object array of `bytes` of shape (rows, min(count, classes)).
    """
    rows = scores.reshape(len(scores), -1)
    if rows.dtype.kind == "f":
        order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    else:  # whole numbers may have no negative; of equals the first is to come first
        order = (rows.shape[1] - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1])[:, :count]
    best = np.empty(order.shape, object)
    for row, indices in enumerate(order.tolist()):
        for place, index in enumerate(indices):
            value = rows[row, index]
            text = f"{value:f}" if rows.dtype.kind == "f" else str(value)
            label = f":{names[index % len(names)]}" if names else ""
            best[row, place] = f"{text}:{index}{label}".encode()
    return best


def _flat(array: Array, datatype: str) -> Any:
    if datatype == "BYTES":
        return list(map(text_of, array.ravel().tolist()))
    return np.ascontiguousarray(numbers(array, datatype)).reshape(-1)
