"""`POST /v2/models/{name}/infer`: the Open Inference Protocol's inference route.

The header `Inference-Header-Content-Length` alone says whether binary tensors follow the JSON, and
where the JSON ends. `Content-Type` is ignored, since clients send different ones (none, JSON,
octet-stream) for the same body.

Clients send the same headers again and again, and often the same JSON before other tensors. So an
`InferPlan` keeps what follows from the headers, and the JSON that it has read.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from batcher.codecs.oip.request import InferHead, raw_head, read_head
from batcher.codecs.oip.response import encode
from batcher.codecs.response_coding import compress, response_coding
from batcher.core.request import InferenceResponse
from batcher.errors import InvalidInput
from batcher.frontends.endpoints.call import Body, Call, CallHead, Reply
from batcher.frontends.endpoints.client_address import client_of
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.oip.answering import (
    MAX_KEPT_HEAD_BYTES,
    MAX_KEPT_HEADS,
    SLOW_BYTES,
    has_slow_inputs,
    parameters_of,
    write_slow,
)
from batcher.serving.servable import Servable


class InferPlan:
    """How to answer all calls that have one and the same head, while an epoch lasts.

    Attributes:
        epoch: the time in which the plan is true.
        servable: answers the calls.
        key: API key whose quota the calls are charged to; empty where no stage reads keys.
        coding: content coding of the answers, empty for none.
        pooled: whether every call has work for the CPU pool.
        slow_inputs: whether some inputs are BYTES, which are decoded one by one.
    """

    __slots__ = (
        "_heads",
        "_json_length",
        "coding",
        "epoch",
        "key",
        "pooled",
        "servable",
        "slow_inputs",
    )

    def __init__(self, head: CallHead, engine: Engine) -> None:
        """Work the plan out from `head`.

        Raises:
            ClientError: a header is wrong, or there is no such model or version.
            Unavailable: the model cannot answer now.
        """
        self.epoch = engine.epoch
        name, version = head.arguments["name"], head.arguments.get("version", "")
        self.servable: Servable = engine.ready_model(name, version)
        self.key = head.key() if self.servable.reads_key else ""
        self.coding = response_coding(head.header(b"accept-encoding"))
        length = head.headers.get(b"inference-header-content-length")
        self._json_length = None if length is None else _length(length)
        self._heads: dict[bytes, InferHead] = {}
        self.slow_inputs = has_slow_inputs(self.servable.spec)
        self.pooled = self.slow_inputs or self.servable.reads_client or bool(self.coding)

    def read(self, body: Body) -> tuple[InferHead, Body]:
        """Return the request that the JSON in `body` describes, and the bytes behind the JSON.

        Raises ClientError.
        """
        length = self._json_length
        if length == 0:
            return raw_head(self.servable.spec, len(body)), body
        if length is None:
            return read_head(body, self.servable.spec, self.servable.limits), b""
        if length > len(body):
            raise InvalidInput(
                f"Inference-Header-Content-Length: expected at most {len(body)}, the length of the "
                f"body; got {length}"
            )
        text = bytes(body[:length])
        head = self._heads.get(text)
        if head is None:
            head = self._read_head(text)
        data = body[length:]
        # A view would keep the whole body alive. Where most of the body is the head, that would be
        # memory that no queue counts.
        return head, bytes(data) if length > len(data) else data

    def _read_head(self, text: bytes) -> InferHead:
        head = read_head(text, self.servable.spec, self.servable.limits)
        if len(text) <= MAX_KEPT_HEAD_BYTES and not head.arrays and not head.id:
            if len(self._heads) >= MAX_KEPT_HEADS:
                self._heads.clear()
            self._heads[text] = head
        return head


class OipReplyWriter:
    """Makes the reply of one call: JSON, or JSON with binary tensors behind it."""

    __slots__ = ("_head", "_plan")

    def __init__(self, plan: InferPlan, head: InferHead) -> None:
        """Write the outputs that `head` asks for, for a call that `plan` answers."""
        self._plan = plan
        self._head = head

    def reply(self, response: InferenceResponse) -> Reply:
        """Return the reply that carries `response`, without a content coding. Any thread."""
        body, json_length = encode(response, self._head)
        if json_length is None:
            return Reply(200, b"application/json", body, (), response.model)
        headers = ((b"Inference-Header-Content-Length", b"%d" % json_length),)
        return Reply(200, b"application/octet-stream", body, headers, response.model)

    def coded_reply(self, response: InferenceResponse) -> Reply:
        """Return the reply that carries `response`, in the plan's content coding. Any thread."""
        plain = self.reply(response)
        coding = self._plan.coding
        if not coding:
            return plain
        headers = (*plain.headers, (b"Content-Encoding", coding.encode()))
        return Reply(
            200, plain.content_type, compress(bytes(plain.body), coding), headers, plain.model
        )


class Infer:
    """The endpoint of the route. Reactor thread."""

    def __init__(self, engine: Engine) -> None:
        """Answer by the models of `engine`."""
        self._engine = engine

    def __call__(self, call: Call) -> Deferred[Any]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        plan: InferPlan | None = call.head.plan
        # After its epoch a plan may name a version that is gone.
        if plan is None or plan.epoch.over:
            plan = call.head.plan = InferPlan(call.head, self._engine)
        head, data = plan.read(call.body)
        writer = call.plan = OipReplyWriter(plan, head)
        servable = plan.servable
        client = client_of(call.peer) if plan.pooled or head.slow else ""
        parameters = parameters_of(servable, head, plan.key, bool(plan.coding), client)
        if plan.slow_inputs and len(data) >= SLOW_BYTES:
            deferred = servable.infer_decoded(len(data), partial(head.inputs, data), parameters)
        else:
            deferred = servable.infer(head.inputs(data), parameters)
        if plan.coding or head.slow:
            deferred.addCallback(write_slow, servable, writer.coded_reply, parameters)
        return deferred


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise InvalidInput(
            "Inference-Header-Content-Length: expected a number of bytes; got "
            f"{value.decode('latin-1')!r:.60}"
        )
    return int(value)
