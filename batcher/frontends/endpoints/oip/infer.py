"""`POST /v2/models/{name}/infer`: the Open Inference Protocol's inference route.

The header `Inference-Header-Content-Length` alone says whether binary tensors follow the JSON, and
where the JSON ends. `Content-Type` is ignored, since clients send different ones (none, JSON,
octet-stream) for the same body.

Clients send the same headers again and again, and often the same JSON before other tensors. So an
`InferPlan` keeps what follows from the headers, and `KnownHeads` the JSON that was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from batcher.codecs.content import Buffer
from batcher.codecs.content_coding import HEAVY_BYTES, Body, CodedBody
from batcher.codecs.heavy import (
    decode_heavy_oip,
    encode_heavy_oip,
    is_heavy,
    is_heavy_answer,
    is_large_answer,
    oip_inputs_with_files,
    rows_of_large_answer,
)
from batcher.codecs.oip.request import InferHead, raw_head, read_head
from batcher.codecs.oip.response import Encoded, encode
from batcher.codecs.response_coding import response_coding
from batcher.core.bounded_cache import BoundedCache
from batcher.core.epoch import Epoch
from batcher.core.error_text import brief
from batcher.core.request import InferenceResponse, OutputRows, Parameters
from batcher.core.spec import Array
from batcher.errors import InvalidInput
from batcher.frontends.endpoints.call import Call, CallHead, Fields, Reply, answer_fields
from batcher.frontends.endpoints.client_address import client_of
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.fetched import About, infer_files
from batcher.frontends.endpoints.heavy_answers import write_heavy, write_large
from batcher.frontends.endpoints.oip.answering import (
    MAX_KEPT_HEAD_BYTES,
    has_slow_inputs,
    parameters_of,
    write_slow,
)
from batcher.frontends.endpoints.stage_wishes import wishes_of
from batcher.serving.references.fetcher import InputFetcher
from batcher.serving.servable import Servable

MAX_KNOWN_BYTES = 1 << 20
"""Bytes of the JSON that is known for one version of a model, with what was read from it: some
hundred texts. Most clients of a model send one and the same.
"""


class KnownHeads:
    """The JSON that has been read, for each version of a model while an epoch lasts.

    All plans for a version share it. If each plan had its own, a client could fill as many as it
    can make up heads of HTTP.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._epoch: Epoch | None = None
        self._heads: dict[Servable, BoundedCache[bytes, InferHead]] = {}

    def of(self, servable: Servable, epoch: Epoch) -> BoundedCache[bytes, InferHead]:
        """Return what is known for `servable`, which was found in `epoch`."""
        if self._epoch is not epoch:
            self._epoch = epoch
            self._heads.clear()
        found = self._heads.get(servable)
        if found is None:
            found = self._heads[servable] = BoundedCache(MAX_KNOWN_BYTES)
        return found


class InferPlan:
    """How to answer all calls that have one and the same head, while an epoch lasts.

    Attributes:
        epoch: the time in which the plan is true.
        servable: answers the calls.
        wishes: what the calls say for stages.
        large_rows: fewest rows of an answer that is too large to be copied on the loop.
        coding: content coding of the answers, empty for none.
        pooled: whether every call has work for the CPU pool.
        slow_inputs: whether some inputs are BYTES, which are decoded one by one.
        json_length: bytes of the JSON before binary tensors; None for bodies of JSON alone.
    """

    __slots__ = (
        "_heads",
        "coding",
        "epoch",
        "json_length",
        "large_rows",
        "pooled",
        "servable",
        "slow_inputs",
        "wishes",
    )

    def __init__(self, head: CallHead, engine: Engine, known: KnownHeads) -> None:
        """Work the plan out from `head`; `known` keeps the JSON that has been read.

        Raises:
            ClientError: a header is wrong, or there is no such model or version.
            Unavailable: the model cannot answer now.
        """
        self.epoch = engine.epoch
        self.servable: Servable = engine.traffic.servable(*head.model())
        self.wishes = wishes_of(head, self.servable)
        self.coding = response_coding(head.header(b"accept-encoding"))
        length = head.headers.get(b"inference-header-content-length")
        self.json_length = None if length is None else _length(length)
        self._heads = known.of(self.servable, self.epoch)
        self.large_rows = rows_of_large_answer(self.servable.spec)
        self.slow_inputs = has_slow_inputs(self.servable.spec)
        self.pooled = self.slow_inputs or self.servable.reads_client or bool(self.coding)

    @property
    def is_binary(self) -> bool:
        """Whether bodies have binary tensors behind their JSON, or instead of JSON."""
        return self.json_length is not None

    def is_heavy(self, body: Body) -> bool:
        """Return whether the JSON in `body` is too long for the loop."""
        length = len(body) if self.json_length is None else self.json_length
        return is_heavy(body) and length >= HEAVY_BYTES

    def read(self, body: Buffer) -> tuple[InferHead, Buffer]:
        """Return the request that the JSON in `body` describes, and the bytes behind the JSON.

        Raises ClientError.
        """
        length = self.json_length
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
        head = self._heads.kept.get(text)
        if head is None:
            head = self._read_head(text)
        data = body[length:]
        # A view would keep the whole body alive. Where most of the body is the head, that would be
        # memory that no queue counts.
        return head, bytes(data) if length > len(data) else data

    def _read_head(self, text: bytes) -> InferHead:
        head = read_head(text, self.servable.spec, self.servable.limits)
        is_kept = not (head.arrays or head.id or head.references)
        if len(text) <= MAX_KEPT_HEAD_BYTES and is_kept:
            self._heads.put(text, head, 3000 + 60 * len(text))
        return head


class OipReplyWriter:
    """Makes the reply of one call: JSON, or JSON with binary tensors behind it."""

    __slots__ = ("_head", "_parameters", "_plan")

    def __init__(self, plan: InferPlan, head: InferHead, parameters: Parameters) -> None:
        """Write the outputs that `head` asks for, for a call that `plan` answers.

        `parameters` are those of the request.
        """
        self._plan = plan
        self._head = head
        self._parameters = parameters

    def reply(self, response: InferenceResponse) -> Reply | Deferred[Reply]:
        """Return the reply that carries `response`, or a Deferred of a reply that takes long."""
        head, plan = self._head, self._plan
        model = response.model
        fields = answer_fields(response, plan.servable.picks_version, plan.wishes.once)
        if head.heavy and is_heavy_answer(response):
            return write_heavy(
                plan.servable, response, self._parameters, encode_heavy_oip, head, plan.coding
            ).addCallback(self._reply, model, fields, plan.coding)
        if plan.coding or head.slow:
            write = partial(encode_heavy_oip, head=head, coding=plan.coding)
            return write_slow(response, plan.servable, write, self._parameters).addCallback(
                self._reply, model, fields, plan.coding
            )
        outputs = response.outputs
        if (
            not isinstance(outputs, OutputRows) or outputs.rows >= plan.large_rows
        ) and is_large_answer(response):
            written: Deferred[Encoded] = write_large(plan.servable, encode, response, head)
            return written.addCallback(self._reply, model, fields)
        return self._reply(encode(response, head), model, fields)

    def _reply(
        self, encoded: tuple[Buffer, int | None], model: str, headers: Fields, coding: str = ""
    ) -> Reply:
        body, json_length = encoded
        if json_length is not None:
            headers = ((b"Inference-Header-Content-Length", b"%d" % json_length), *headers)
        if coding:
            headers = (*headers, (b"Content-Encoding", coding.encode()))
        media_type = b"application/json" if json_length is None else b"application/octet-stream"
        return Reply(200, media_type, body, headers, model)


class Infer:
    """The endpoint of the route. Reactor thread."""

    def __init__(self, engine: Engine) -> None:
        """Answer by the models of `engine`."""
        self._engine = engine
        self._known = KnownHeads()

    def __call__(self, call: Call) -> Deferred[Any]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        return self._infer(call.body, call)

    def _infer(self, body: Any, call: Call) -> Deferred[Any]:
        plan: InferPlan | None = call.head.plan
        # After its epoch a plan may name a version that is gone.
        if plan is None or plan.epoch.over:
            plan = call.head.plan = InferPlan(call.head, self._engine, self._known)
        if len(body) >= HEAVY_BYTES:
            if isinstance(body, CodedBody) and plan.is_binary:
                inflated = plan.servable.run_on_pool(
                    len(body), body.plain, Parameters(client=client_of(call.peer))
                )
                return inflated.addCallback(self._infer, call)
            if plan.is_heavy(body):
                return _infer_heavy(body, call, plan)
        head, data = plan.read(body)
        servable = plan.servable
        client = client_of(call.peer) if plan.pooled or head.slow or head.references else ""
        coded = bool(plan.coding)
        parameters = parameters_of(servable, head, plan.wishes, coded, client)
        call.plan = OipReplyWriter(plan, head, parameters)
        if head.references:
            return _fetch(servable, self._engine.fetcher, head, data, parameters)
        if plan.slow_inputs and len(data) >= HEAVY_BYTES:
            return servable.infer_decoded(len(data), partial(head.inputs, data), parameters)
        return servable.infer(head.inputs(data), parameters)


def _fetch(
    servable: Servable,
    fetcher: InputFetcher,
    head: InferHead,
    data: Buffer,
    parameters: Parameters,
) -> Deferred[InferenceResponse]:
    """Answer a call that names files, which are fetched first."""
    addresses = [each.address for each in head.references]
    about: About = None
    if servable.decoded is not None and not head.arrays:
        about = repr((head.binaries, head.references)), data
    arguments = (len(data), parameters, about, oip_inputs_with_files, head, data)
    return infer_files(servable, fetcher, addresses, *arguments)


def _infer_heavy(body: Body, call: Call, plan: InferPlan) -> Deferred[InferenceResponse]:
    """Answer a call whose JSON is read in the process for heavy codecs."""
    servable = plan.servable
    parameters = servable.timed(plan.wishes.parameters(client=client_of(call.peer)))
    arguments = (decode_heavy_oip, body, plan.json_length, servable.spec, servable.limits)
    decoded = servable.run_heavy(len(body), parameters, *arguments)
    return decoded.addCallback(_infer_decoded, call, plan, servable.deadline(0.0))


def _infer_decoded(
    decoded: tuple[InferHead, Mapping[str, Array]], call: Call, plan: InferPlan, began: float
) -> Deferred[InferenceResponse]:
    """Answer a call whose body was read; the time of its timeout runs since `began`, in seconds."""
    head, inputs = decoded
    servable = plan.servable
    client = client_of(call.peer)
    parameters = parameters_of(servable, head, plan.wishes, client=client)
    timeout = servable.timeout if head.timeout is None else head.timeout
    parameters = parameters._replace(deadline=began + timeout)
    call.plan = OipReplyWriter(plan, head, parameters)
    return servable.infer_by_successor(inputs, parameters)


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise InvalidInput(
            "Inference-Header-Content-Length: expected a number of bytes; got "
            f"{brief(value.decode('latin-1'), 60)}"
        )
    return int(value)
