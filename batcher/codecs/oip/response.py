"""Answers of the Open Inference Protocol.

JSON tensors, binary tensors behind the JSON, and classes in place of scores.

What is absent is left out, not null; data are flat; a JSON tensor carries no `parameters`, since
clients in C++ take any for `binary_data_size`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from batcher.codecs.content import Buffer
from batcher.codecs.formats.json_lists import to_json
from batcher.codecs.formats.octet_stream import output_bytes
from batcher.codecs.formats.predictions import numbers
from batcher.codecs.oip.classes import best_classes
from batcher.codecs.oip.elements import texts, to_elements
from batcher.codecs.oip.request import InferHead, WantedOutput
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array


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
    document["outputs"] = [output_entry(wanted, response, pieces) for wanted in head.outputs]
    text = to_json(document)
    if not any(wanted.binary for wanted in head.outputs):
        return Encoded(text, None)
    pieces[0] = text
    return Encoded(b"".join(pieces), len(text))


def output_entry(
    wanted: WantedOutput, response: InferenceResponse, pieces: list[Buffer]
) -> dict[str, Any]:
    """Return the entry of one output in an answer.

    Its bytes, if they are wanted, are put behind `pieces`.
    """
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


def _flat(array: Array, datatype: str) -> Any:
    if datatype == "BYTES":
        return texts(array)
    return np.ascontiguousarray(numbers(array, datatype)).reshape(-1)
