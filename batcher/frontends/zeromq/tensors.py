"""An inference whose tensors are the parts of a message, and its answer in the same form.

What holds for a header (model, shapes, outputs, stages) is a `TensorRequest`. Each request with
that header then costs a look at its parts, one call of `Servable.infer`, and an encoding. Errors
are those of HTTP: the same status, code and text, as members of the answer's header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure

from batcher.codecs.content import Buffer, Files
from batcher.codecs.content_coding import HEAVY_BYTES
from batcher.codecs.heavy import is_heavy_answer, is_large_answer
from batcher.codecs.joining import joined
from batcher.codecs.oip.request import InferHead
from batcher.codecs.zeromq_messages import (
    InferMessage,
    error_header,
    infer_answer,
    infer_head,
    tensor_bytes,
    tensors_in,
)
from batcher.core.element_sizes import sized
from batcher.core.frames import clear_all_frames
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Array
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.call import CallHead, answer_fields
from batcher.frontends.endpoints.client_address import client_of
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.failures import CLIENT_LEFT, describe_failure
from batcher.frontends.endpoints.fetched import About, infer_files
from batcher.frontends.endpoints.heavy_answers import write_heavy, write_large
from batcher.frontends.endpoints.oip.answering import has_slow_inputs, parameters_of, write_slow
from batcher.frontends.endpoints.stage_wishes import wishes_of
from batcher.frontends.zeromq.request import SMALL_BYTES, Parts

ROUTE = "zeromq:infer"
"""The route of these requests, in metrics and in the access log."""


class TensorRequest:
    """How to answer all inferences that have one header, while an epoch lasts. Reactor thread."""

    __slots__ = (
        "_answers",
        "_epoch",
        "_head",
        "_name",
        "_request_id",
        "_servable",
        "_slow_inputs",
        "_wishes",
        "is_small",
    )

    def __init__(self, message: InferMessage, answers: TensorAnswers) -> None:
        """Work out what `message` says; raises ClientError or Unavailable."""
        engine = answers.engine
        self._answers = answers
        self._epoch = engine.epoch
        self._name = message.model
        self._servable = engine.traffic.servable(message.model, message.version)
        spec = self._servable.spec
        self._head = infer_head(message.document, spec, self._servable.limits)
        version = {"version": message.version}
        head = CallHead("POST", "", version, "", message.headers, ())
        self._request_id = head.request_id
        self._wishes = wishes_of(head, self._servable)
        self._slow_inputs = has_slow_inputs(spec)
        self.is_small = not self._slow_inputs and tensor_bytes(self._head) <= SMALL_BYTES

    @property
    def is_over(self) -> bool:
        """Whether models have changed since."""
        return self._epoch.over

    def answer(self, parts: Sequence[Buffer], began: float, address: str) -> Deferred[Parts]:
        """Answer one inference, as `Known` says."""
        try:
            deferred = self._infer(parts, address)
        except Exception:
            deferred = fail()
        arguments = (began, address)
        return deferred.addCallbacks(self._answered, self._failed, arguments, errbackArgs=arguments)

    def _infer(self, parts: Sequence[Buffer], address: str) -> Deferred[InferenceResponse]:
        head, servable = self._head, self._servable
        parameters = self._parameters(address)
        if head.references:
            addresses = [each.address for each in head.references]
            about: About = None
            if servable.decoded is not None and not head.arrays and not parts:
                about = repr(head.references), b""
            arguments = (_bytes_of(parts), parameters, about, _with_files, head, list(parts))
            return infer_files(servable, self._answers.engine.fetcher, addresses, *arguments)
        if self._slow_inputs and (nbytes := _bytes_of(parts)) >= HEAVY_BYTES:
            return servable.infer_decoded(nbytes, partial(tensors_in, head, parts), parameters)
        return servable.infer(tensors_in(head, parts), parameters)

    def _parameters(self, address: str) -> Parameters:
        head, servable = self._head, self._servable
        pooled = servable.reads_client or self._slow_inputs or head.slow or head.references
        client = client_of(f"{address}:0") if pooled else ""
        return parameters_of(servable, head, self._wishes, client=client)

    def _answered(self, response: InferenceResponse, began: float, address: str) -> Any:
        """Return the parts of the answer, or a Deferred of parts that take long to write."""
        try:
            written = self._written(response, address)
        except Exception:
            return self._failed(Failure(), began, address)
        if isinstance(written, list):
            return self._sent(written, response.version, began, address)
        arguments = (response.version, began, address)
        failed = (began, address)
        return written.addCallbacks(self._sent, self._failed, arguments, errbackArgs=failed)

    def _written(self, response: InferenceResponse, address: str) -> Parts | Deferred[Parts]:
        head, servable = self._head, self._servable
        fields = self._fields(response)
        if head.heavy and is_heavy_answer(response):
            arguments = (infer_answer, head, fields)
            return write_heavy(servable, response, self._parameters(address), *arguments)
        if head.slow:
            write = partial(infer_answer, head=head, fields=fields)
            return write_slow(response, servable, write, self._parameters(address))
        if is_large_answer(response):
            return write_large(servable, _copied_answer, response, head, fields)
        return infer_answer(response, head, fields)

    def _fields(self, response: InferenceResponse) -> tuple[tuple[str, str], ...]:
        """Return the header fields of the answer that stages and the client ask for."""
        picks, once = self._servable.picks_version, self._wishes.once
        if not (picks or once or self._request_id):
            return ()
        fields = answer_fields(response, picks, once)
        if self._request_id is not None:
            fields = (*fields, (b"X-Request-Id", self._request_id))
        return tuple([(name.decode().lower(), value.decode()) for name, value in fields])

    def _sent(self, parts: Parts, version: str, began: float, address: str) -> Parts:
        log, name = self._answers.log, self._servable.spec.name
        log.answered_rpc(ROUTE, name, 200, began, lambda: address, version)
        return parts

    def _failed(self, failure: Failure, began: float, address: str) -> Parts | Failure:
        error = failure.value
        assert error is not None
        if isinstance(error, CancelledError):
            name = self._servable.spec.name
            self._answers.log.answered_rpc(ROUTE, name, CLIENT_LEFT, began, lambda: address)
            return failure
        return self._answers.failure(error, self._request_id, self._name, began, address)


class TensorAnswers:
    """What all inferences share.

    Attributes:
        engine: has the models.
        log: counts requests.
        disclosure: decides what clients learn of errors.
    """

    def __init__(self, engine: Engine, log: AnswerLog, disclosure: Disclosure) -> None:
        """Store the attributes."""
        self.engine = engine
        self.log = log
        self.disclosure = disclosure

    def failure(
        self, error: BaseException, request_id: bytes | None, model: str, began: float, peer: str
    ) -> Parts:
        """Return the answer that tells of `error`, and count the request.

        `model` is the client's text for the model; the rest is as in `Known.answer`.
        """
        status, code, text, extra = describe_failure(error, self.disclosure, request_id)
        clear_all_frames(error)
        named = self.log.model_named(model) if model else ""
        self.log.answered_rpc(ROUTE, named, status, began, lambda: peer)
        fields = {name.decode().lower(): value.decode("latin-1") for name, value in extra}
        if request_id is not None:
            fields.setdefault("x-request-id", request_id.decode("latin-1"))
        return [error_header(status, code, text, fields)]


def _bytes_of(parts: Sequence[Buffer]) -> int:
    return sum(map(len, parts))


def _with_files(files: Files, head: InferHead, parts: Sequence[Buffer]) -> Mapping[str, Array]:
    inputs = tensors_in(head, parts)
    for each in head.references:
        inputs[each.tensor.name] = each.array(files)
    return sized(inputs)


def _copied_answer(
    response: InferenceResponse, head: InferHead, fields: tuple[tuple[str, str], ...]
) -> Parts:
    """Return an answer whose parts hold nothing of the batch. The pool's thread."""
    return [joined([part]) for part in infer_answer(response, head, fields)]
