"""Answers of the Open Inference Protocol.

An output is a JSON tensor, a binary tensor behind the JSON, or classes in place of its scores.

- An absent member is left out, never null.
- The data of a JSON tensor are flat.
- A JSON tensor carries no `parameters`: clients in C++ take any parameter for `binary_data_size`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from batcher.codecs.content import Buffer
from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.codecs.formats.json_text import to_json
from batcher.codecs.formats.octet_stream import output_bytes
from batcher.codecs.formats.uneven_rows import even_rows
from batcher.codecs.joining import joined
from batcher.codecs.oip.classes import best_classes
from batcher.codecs.oip.elements import texts, to_elements
from batcher.codecs.oip.request import InferHead, RequestedOutput
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array


class Encoded(NamedTuple):
    """The body of an answer.

    Attributes:
        body: bytes of the JSON, and of the binary tensors behind the JSON.
        json_length: bytes of the JSON, if binary tensors follow; else None.
    """

    body: Buffer
    json_length: int | None


def encode(response: InferenceResponse, head: InferHead) -> Encoded:
    """Return the answer with the outputs that `head` asks for.

    Raises:
        NotAcceptable: JSON is asked for, and cannot hold a BYTES output; or rows are ragged.
    """
    document: dict[str, Any] = {"id": head.id} if head.id else {}
    document |= {"model_name": response.model, "model_version": response.version}
    # the JSON tells the sizes of the pieces behind it, so its place is kept free until the end
    pieces: list[Buffer] = [b""]
    document["outputs"] = [output_entry(output, response, pieces) for output in head.outputs]
    text = to_json(document)
    if not any(output.binary for output in head.outputs):
        return Encoded(text, None)
    pieces[0] = text
    return Encoded(joined(pieces), len(text))


def output_entry(
    output: RequestedOutput, response: InferenceResponse, pieces: list[Buffer]
) -> dict[str, Any]:
    """Return the entry of one output in an answer; append its bytes to `pieces` if it is binary.

    Raises:
        NotAcceptable: the output is BYTES that JSON cannot hold, or its rows are ragged.
    """
    tensor = output.tensor
    array = even_rows(response.outputs[tensor.name], tensor)
    datatype = tensor.datatype.name
    if output.classes:
        names = tensor.labels.names if tensor.labels is not None else ()
        array = best_classes(plain_numbers(array, datatype), output.classes, names)
        datatype = "BYTES"
    entry: dict[str, Any] = {"name": tensor.name, "datatype": datatype, "shape": array.shape}
    if not output.binary:
        entry["data"] = _flat(array, datatype)
        return entry
    data = to_elements(array) if datatype == "BYTES" else output_bytes(response, tensor)
    entry["parameters"] = {"binary_data_size": len(data)}
    pieces.append(data)
    return entry


def _flat(array: Array, datatype: str) -> Any:
    if datatype == "BYTES":
        return texts(array)
    return np.ascontiguousarray(plain_numbers(array, datatype)).reshape(-1)
