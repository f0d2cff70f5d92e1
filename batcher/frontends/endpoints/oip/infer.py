"""`POST /v2/models/{name}/infer`: the Open Inference Protocol's inference route.

Clients differ in `Content-Type` (none, JSON, octet-stream for the same body), so it is not looked
at: the header `Inference-Header-Content-Length` alone says whether, and where, binary tensors
follow the JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from batcher.codecs.oip.members import BULK
from batcher.codecs.oip.request import InferHead, raw_head, read_head
from batcher.codecs.oip.response import encode
from batcher.codecs.response_coding import compress, response_coding
from batcher.core.request import NO_PARAMETERS, InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec
from batcher.errors import InvalidInput, Unavailable
from batcher.frontends.endpoints.call import Body, Call, CallHead, Reply
from batcher.serving.model_version import ModelVersion
from batcher.serving.server import ModelServer

Result = TypeVar("Result")

MOST_HEADS = 16
LONGEST_HEAD = 1024
"""Heads without JSON tensors and without a name that are kept by their bytes, for each kind of
call; clients send the same one again and again.
"""

SLOW_BYTES = 1 << 18
"""From this many bytes on, a body with BYTES elements, which are looked at one by one, is decoded
on the CPU pool.
"""


def has_slow_inputs(spec: ModelSpec) -> bool:
    """Whether inputs of the model `spec` are BYTES, which are looked at one by one."""
    return any(tensor.datatype.name == "BYTES" for tensor in spec.inputs)


class InferPlan:
    """What the head of a call says of how to answer it.

    True for all calls with that head, while no model changes.

    Attributes:
        generation: of the server, when this was worked out.
        served: the version of the model that answers.
        key: whose quota it is charged to, if there are quotas; empty for none.
        coding: the content coding of the answer, empty for none.
        slow_inputs: whether some are BYTES.
    """

    __slots__ = ("_heads", "_json_length", "coding", "generation", "key", "served", "slow_inputs")

    def __init__(self, head: CallHead, server: ModelServer) -> None:
        """Work it out. Raises any ClientError or Unavailable that the head deserves."""
        self.generation = server.generation
        self.served = server.ready_model(head.arguments["name"], head.arguments.get("version", ""))
        self.key = head.key()
        self.coding = response_coding(head.header(b"accept-encoding"))
        length = head.headers.get(b"inference-header-content-length")
        self._json_length = None if length is None else _length(length)
        self._heads: dict[bytes, InferHead] = {}
        self.slow_inputs = has_slow_inputs(self.served.spec)

    def read(self, body: Body) -> tuple[InferHead, Body]:
        """Return what the JSON in `body` says, and the bytes behind it. Raises ClientError."""
        length = self._json_length
        if length == 0:
            return raw_head(self.served.spec, len(body)), body
        if length is None:
            return read_head(body, self.served.spec), b""
        if length > len(body):
            raise InvalidInput(
                f"Inference-Header-Content-Length: expected at most {len(body)}, the length of the "
                f"body; got {length}"
            )
        text = bytes(body[:length])
        found = self._heads.get(text)
        if found is None:
            found = read_head(text, self.served.spec)
            if length <= LONGEST_HEAD and not found.arrays and not found.id:
                if len(self._heads) >= MOST_HEADS:
                    self._heads.clear()
                self._heads[text] = found
        data = body[length:]
        return found, bytes(data) if length > len(
            data
        ) else data  # a view would keep a long head, which no queue counts


class Answer:
    """Makes the reply of one call."""

    __slots__ = ("_head", "_plan")

    def __init__(self, plan: InferPlan, head: InferHead) -> None:
        """Answer what `head` asks for."""
        self._plan = plan
        self._head = head

    def reply(self, response: InferenceResponse) -> Reply:
        """Return the answer that carries `response`."""
        body, json_length = encode(response, self._head)
        if json_length is None:
            return Reply(200, b"application/json", body, (), response.model)
        headers = ((b"Inference-Header-Content-Length", b"%d" % json_length),)
        return Reply(200, b"application/octet-stream", body, headers, response.model)

    def coded_reply(self, response: InferenceResponse) -> Reply:
        """Return the same, in the content coding that the client asked for, if any. Any thread."""
        plain = self.reply(response)
        coding = self._plan.coding
        if not coding:
            return plain
        headers = (*plain.headers, (b"Content-Encoding", coding.encode()))
        return Reply(
            200, plain.content_type, compress(bytes(plain.body), coding), headers, plain.model
        )


class Infer:
    """The route."""

    def __init__(self, server: ModelServer) -> None:
        """Answer from `server`."""
        self._server = server

    def __call__(self, call: Call) -> Deferred[Any]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        server = self._server
        plan: InferPlan | None = call.head.plan
        if plan is None or plan.generation != server.generation:
            plan = call.head.plan = InferPlan(call.head, server)
        head, data = plan.read(call.body)
        answer = call.plan = Answer(plan, head)
        key = plan.key if server.quotas is not None else ""
        parameters = parameters_of(server, plan.served, head, key, bool(plan.coding))
        if plan.slow_inputs and len(data) >= SLOW_BYTES:
            inputs = partial(head.inputs, data)
            deferred = infer_slow(server, plan.served, len(data), inputs, parameters)
        else:
            deferred = server.infer_on(plan.served, head.inputs(data), parameters)
        if plan.coding or head.slow:
            deferred.addCallback(write_slow, server, plan.served, answer.coded_reply, parameters)
        return deferred


def parameters_of(
    server: ModelServer, served: ModelVersion, head: InferHead, key: str = "", timed: bool = False
) -> Parameters:
    """Return the parameters of a request.

    Those that `head` names, and the deadline where work on the pool needs one.

    Args:
        server: has the clock.
        served: the model that answers.
        head: what the request says.
        key: whose quota it is charged to.
        timed: whether the deadline is needed.
    """
    if head.timeout is None and not head.priority and not timed and not head.slow and not key:
        return NO_PARAMETERS
    level = served.max_level if head.priority == BULK else head.priority
    if level > served.max_level:
        level = 0  # as other servers of the protocol have it
    return Parameters(server.deadline(served, head.timeout), level, head.id, key)


def infer_slow(
    server: ModelServer,
    served: ModelVersion,
    size: int,
    inputs: Callable[[], dict[str, Array]],
    parameters: Parameters,
) -> Deferred[InferenceResponse]:
    """Infer with `inputs`, which are made of `size` bytes on the CPU pool. Reactor thread."""
    decoded = _on_pool(server, served, size, parameters, inputs)
    return decoded.addCallback(
        lambda made: server.infer_on(server.successor(served), made, parameters)
    )


def write_slow(
    response: InferenceResponse,
    server: ModelServer,
    served: ModelVersion,
    write: Callable[[InferenceResponse], Result],
    parameters: Parameters,
) -> Deferred[Result]:
    """Return what `write` makes of `response` on the CPU pool. Reactor thread."""
    size = sum(array.nbytes for array in response.outputs.values())
    try:
        return _on_pool(server, served, size, parameters, partial(write, response))
    except Unavailable as err:
        err.retry_after = 0  # the model has run
        raise


def _on_pool(
    server: ModelServer,
    served: ModelVersion,
    size: int,
    parameters: Parameters,
    function: Callable[[], Result],
) -> Deferred[Result]:
    deadline = parameters.deadline if parameters.deadline is not None else server.deadline(served)
    return server.run_on_pool(size, deadline, function)


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise InvalidInput(
            "Inference-Header-Content-Length: expected a number of bytes; got "
            f"{value.decode('latin-1')!r:.60}"
        )
    return int(value)
