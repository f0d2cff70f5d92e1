"""The operations of the client, each as a value that builds its request and reads the response.

Nothing is sent here. A call may take several attempts, and each attempt builds its request anew,
because each attempt has less time left. An inference tells the server the seconds that are left, so
that the server drops a request that nobody waits for any more.

Source: Open Inference Protocol v2 and its binary tensor data and parameters extensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, inf
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

from numpy.typing import ArrayLike

from batcher.client.response_reading import (
    HttpResponse,
    InferResult,
    read_document,
    read_result,
    read_success,
)
from batcher.client.tensors import Bfloat16, BinaryTensor, to_tensor
from batcher.codecs.formats.json_text import to_json
from batcher.codecs.oip.members import MAX_TIMEOUT_US

Result = TypeVar("Result", covariant=True)
Inputs = Mapping[str, ArrayLike | Bfloat16]
"""Input name to anything that numpy takes for an array."""

_MAX_KEPT = 256
"""How many paths and JSON heads are kept: the next request mostly has the same ones."""


class HttpRequest(NamedTuple):
    """A request, ready to be sent.

    Attributes:
        method: HTTP method.
        path: percent-encoded path, from the first slash on.
        headers: header fields, names in lower case.
        body: bytes of the body.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


class Operation(Protocol[Result]):
    """One operation of the protocol: how to ask for it, and how to read the response."""

    @property
    def path(self) -> str:
        """Path of the route."""
        ...

    def request(self, seconds_left: float) -> HttpRequest:
        """Return the request of an attempt that has `seconds_left`."""
        ...

    def read(self, response: HttpResponse) -> Result:
        """Return what a response without an error says. Raises MalformedAnswer."""
        ...


class InferOperation(NamedTuple):
    """`POST …/infer`.

    Attributes:
        path: path of the route.
        request_id: the caller's name for the request, empty without.
        output_names: names of the outputs wanted, None for all.
        priority: 1 the highest, 0 for the model's default.
        tensors: input name to tensor.
    """

    path: str
    request_id: str
    output_names: tuple[str, ...] | None
    priority: int
    tensors: Mapping[str, BinaryTensor]

    def request(self, seconds_left: float) -> HttpRequest:
        """Return the request. The caller's arrays are read now, and again at a later attempt."""
        inputs = tuple(
            [
                (name, tensor.datatype, tensor.shape, tensor.size)
                for name, tensor in self.tensors.items()
            ]
        )
        # rounded up: a timeout of 0 would mean the model's default
        timeout_us = ceil(min(seconds_left * 1e6, MAX_TIMEOUT_US)) if seconds_left < inf else 0
        head = _head(self.request_id, inputs, self.output_names, self.priority, timeout_us)
        headers = {
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(len(head)),
        }
        body = b"".join([head, *[tensor.data for tensor in self.tensors.values()]])
        return HttpRequest("POST", self.path, headers, body)

    def read(self, response: HttpResponse) -> InferResult:
        """Return the outputs. Raises MalformedAnswer."""
        return read_result(response)


@dataclass(frozen=True, slots=True)
class MetadataOperation:
    """`GET` of the description of a model or of the server.

    Attributes:
        path: path of the route.
    """

    path: str

    def request(self, seconds_left: float) -> HttpRequest:
        """Return the request."""
        return HttpRequest("GET", self.path, {})

    def read(self, response: HttpResponse) -> dict[str, Any]:
        """Return the JSON object. Raises MalformedAnswer."""
        return read_document(response)


@dataclass(frozen=True, slots=True)
class ReadyOperation:
    """`GET` of the server's readiness: only the status of the response counts.

    Attributes:
        path: path of the route.
    """

    path: str = "/v2/health/ready"

    def request(self, seconds_left: float) -> HttpRequest:
        """Return the request."""
        return HttpRequest("GET", self.path, {})

    def read(self, response: HttpResponse) -> None:
        """Let a response with status 200 pass. Raises MalformedAnswer."""
        read_success(response)


def infer_operation(
    model: str,
    inputs: Inputs,
    version: str,
    outputs: Iterable[str] | None,
    priority: int,
    request_id: str,
) -> InferOperation:
    """Return an inference as an operation; the arguments are those of `Client.infer`.

    Raises:
        TypeError: an input's dtype has no datatype.
        ValueError: a name or the priority is not what it should be, or there are no inputs.
    """
    if (type(inputs) is not dict and not isinstance(inputs, Mapping)) or not inputs:
        raise _without_names(model, inputs)
    if not isinstance(priority, int) or priority < 0:
        raise ValueError(f"priority: expected 1 (highest) and up, or 0 (default); got {priority!r}")
    if isinstance(outputs, str):
        raise ValueError(f"outputs: expected a list of names; got one text: write [{outputs!r}]")
    tensors = {name: to_tensor(name, value) for name, value in inputs.items()}
    names = None if outputs is None else tuple(outputs)
    path = model_path(model, version) + "/infer"
    return InferOperation(path, request_id, names, int(priority), tensors)


def _without_names(model: str, inputs: object) -> ValueError:
    """Return the error of a call whose inputs are no mapping, such as an array, or are none."""
    if isinstance(inputs, Mapping):
        return ValueError(f"model {model!r}: expected at least one input; got none")
    kind = type(inputs).__name__
    return ValueError(
        f"inputs: expected a mapping of names to arrays; got {kind}: write {{name: array}}"
    )


@lru_cache(maxsize=_MAX_KEPT)
def model_path(model: str, version: str = "") -> str:
    """Return the path of a model, or of one version of the model.

    A name becomes one segment of the path, whatever characters the name has.

    Raises:
        ValueError: the model's name is empty, or a name is `.` or `..`.
    """
    if model in ("", ".", "..") or version in (".", ".."):
        raise ValueError(
            f"expected the name of a model, and a version or none; got {model!r} and {version!r}"
        )
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


@lru_cache(maxsize=_MAX_KEPT)
def _head(
    request_id: str,
    inputs: tuple[tuple[str, str, tuple[int, ...], int], ...],
    output_names: tuple[str, ...] | None,
    priority: int,
    timeout_us: int,
) -> bytes:
    """Return the JSON of an inference; `inputs` are name, datatype, shape and bytes of each."""
    members: dict[str, Any] = {"id": request_id} if request_id else {}
    if output_names is not None:
        members["outputs"] = [{"name": name} for name in output_names]
    members["inputs"] = [_input_entry(*entry) for entry in inputs]
    parameters: dict[str, Any] = {"binary_data_output": True}
    if timeout_us:
        parameters["timeout"] = timeout_us
    if priority:
        parameters["priority"] = priority
    return to_json({**members, "parameters": parameters})


def _input_entry(name: str, datatype: str, shape: tuple[int, ...], size: int) -> dict[str, Any]:
    return {
        "name": name,
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
    }
