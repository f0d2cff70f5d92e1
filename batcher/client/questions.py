"""What is asked, as values: a call's method, path, headers and body, without sending anything.

A question can be put several times: each attempt has its own, shorter, time, which an inference
tells the server, so that the server drops what nobody waits for any more. At the first attempt it
is the caller's own number to the digit: servers keep what they worked out for a head that comes
again byte for byte.

Answers are asked for as they are (`Accept-Encoding: identity`): numbers hardly get smaller, and
compressing costs the server more than the network gains.

Source: Open Inference Protocol v2 and its binary tensor data and parameters extensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from numpy.typing import ArrayLike

from batcher.client.answers import Answer, InferResult, read_document, read_result, read_success
from batcher.client.tensors import Bfloat16, BinaryTensor, to_tensor
from batcher.codecs.formats.json_lists import to_json
from batcher.codecs.oip.members import MAX_TIMEOUT_US

Result = TypeVar("Result", covariant=True)
Inputs = Mapping[str, ArrayLike | Bfloat16]
"""Name to anything that numpy takes for an array."""

PLAIN = {"accept-encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request, ready to be sent.

    Attributes:
        method: its method.
        path: percent-encoded, from the first slash on.
        headers: its header fields, names in lower case.
        body: its bytes.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


class Question(Protocol[Result]):
    """Something to ask the server, and how to read what it answers."""

    def outgoing(self, left: float) -> Outgoing:
        """Return the request of an attempt that has `left` seconds."""
        ...

    def read(self, answer: Answer) -> Result:
        """Return what a good `answer` says. Raises MalformedAnswer."""
        ...


@dataclass(frozen=True, slots=True)
class Infer:
    """`POST …/infer`.

    Attributes:
        path: the route.
        members: of the JSON, besides inputs and parameters.
        priority: 1 the highest, 0 for the model's default.
        tensors: the inputs, by name.
    """

    path: str
    members: Mapping[str, Any]
    priority: int
    tensors: Mapping[str, BinaryTensor]

    def outgoing(self, left: float) -> Outgoing:
        """Return the request; its tensors are read now, and again at a later attempt."""
        parameters: dict[str, Any] = {"binary_data_output": True}
        if left < float("inf"):
            parameters["timeout"] = min(ceil(left * 1e6), MAX_TIMEOUT_US)
        if self.priority:
            parameters["priority"] = self.priority
        inputs = [
            {
                "name": name,
                "shape": shape,
                "datatype": datatype,
                "parameters": {"binary_data_size": tensor.size},
            }
            for name, tensor in self.tensors.items()
            for datatype, shape, _ in (tensor,)
        ]
        text = to_json({**self.members, "inputs": inputs, "parameters": parameters})
        headers = {
            **PLAIN,
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(len(text)),
        }
        return Outgoing(
            "POST",
            self.path,
            headers,
            b"".join((text, *(tensor.data for tensor in self.tensors.values()))),
        )

    def read(self, answer: Answer) -> InferResult:
        """Return the outputs."""
        return read_result(answer)


@dataclass(frozen=True, slots=True)
class Metadata:
    """`GET` of a model's, or the server's, description."""

    path: str

    def outgoing(self, left: float) -> Outgoing:
        """Return the request."""
        return Outgoing("GET", self.path, PLAIN)

    def read(self, answer: Answer) -> dict[str, Any]:
        """Return the document."""
        return read_document(answer)


@dataclass(frozen=True, slots=True)
class Ready:
    """`GET` of whether the server is ready: only the status counts."""

    path: str = "/v2/health/ready"

    def outgoing(self, left: float) -> Outgoing:
        """Return the request."""
        return Outgoing("GET", self.path, PLAIN)

    def read(self, answer: Answer) -> None:
        """Read nothing."""
        read_success(answer)


def infer(
    model: str,
    inputs: Inputs,
    version: str,
    outputs: Iterable[str] | None,
    priority: int,
    request_id: str,
) -> Infer:
    """Return the question that an inference is; the arguments are those of `Client.infer`.

    Raises:
        TypeError: an input's dtype has no datatype.
        ValueError: a name is none, or there are no inputs.
    """
    if not inputs:
        raise ValueError(f"model {model!r}: expected at least one input; got none")
    if not isinstance(priority, int) or priority < 0:
        raise ValueError(
            f"priority: expected 1 (the highest) and up, or 0 for the default; got {priority!r}"
        )
    members: dict[str, Any] = {"id": request_id} if request_id else {}
    if outputs is not None:
        members["outputs"] = [{"name": name} for name in outputs]
    tensors = {name: to_tensor(name, value) for name, value in inputs.items()}
    return Infer(f"{model_path(model, version)}/infer", members, priority, tensors)


def model_path(model: str, version: str = "") -> str:
    """Return the path of a model, or of one version of it.

    Each name is one segment, whatever is in it.

    Raises:
        ValueError: a name is empty, or one that paths use for themselves.
    """
    if model in ("", ".", "..") or version in (".", ".."):
        raise ValueError(
            f"expected the name of a model, and a version or none; got {model!r} and {version!r}"
        )
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path
