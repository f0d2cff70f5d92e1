"""A request on its way from a message to `Servable.infer`, and its answer back into a message.

The deadline of the call is also the deadline of the request. So a request is dropped when its
client waits no more, and likewise when its client cancels the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from twisted.internet.defer import Deferred

from batcher.codecs.content import Buffer, Files
from batcher.codecs.content_coding import HEAVY_BYTES
from batcher.codecs.heavy import is_heavy_answer, is_large_answer
from batcher.codecs.oip.request import InferHead
from batcher.core.copied_bytes import joined_bytes
from batcher.core.element_sizes import sized
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Array
from batcher.errors import InvalidInput
from batcher.frontends.endpoints.client_address import client_of
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.fetched import About, infer_files
from batcher.frontends.endpoints.heavy_answers import write_heavy, write_large
from batcher.frontends.endpoints.oip.answering import parameters_of, write_slow
from batcher.frontends.endpoints.stage_wishes import StageWishes, once_key
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.calls import (
    Context,
    PeerOf,
    fresh_of,
    key_of,
    once_of,
    outcome,
    route_of,
    say_replayed,
)
from batcher.frontends.grpc.large import InferMessage, LargeTensors
from batcher.frontends.grpc.requests import InferMessageReader, ParsedRequest
from batcher.frontends.grpc.responses import InferAnswer, WrittenAnswer, answer_pieces, message_of
from batcher.frontends.grpc.typed import typed_inputs
from batcher.serving.references.fetcher import InputFetcher
from batcher.serving.servable import Servable

Around = Callable[[list[Buffer]], list[Buffer]]
"""Returns the pieces of the message around those of a response."""


class Inference:
    """`ModelInfer`, and each request of `ModelStreamInfer`. Reactor thread."""

    def __init__(self, engine: Engine, peer_of: PeerOf) -> None:
        """Answer by the models of `engine`.

        `peer_of` says who is behind what the library calls the client.
        """
        self._engine = engine
        self._peer_of = peer_of
        # The look-ups below are true while this epoch lasts.
        self._epoch = engine.epoch
        self._found: dict[tuple[str, str], tuple[Servable, InferMessageReader]] = {}

    async def answer(self, asked: InferMessage, context: Context) -> InferAnswer:
        """Answer one call, as `infer` does. Reactor thread."""
        return await self.infer(asked.message, context, asked.tensors)

    async def infer(
        self,
        message: pb.ModelInferRequest,
        context: Context,
        tensors: LargeTensors | None = None,
        around: Around = list,
    ) -> InferAnswer:
        """Answer one request, whose `tensors` may have been cut out of the message.

        `around` makes the whole of an answer that is written here. Raises any ClientError or
        ServerError. Reactor thread.
        """
        servable, reader = self._find(message.model_name, message.model_version)
        request = reader.read(message, tensors)
        head = request.head
        pooled = servable.reads_client or reader.slow or request.typed or head.references
        client = client_of(self._peer_of(context.peer())) if pooled else ""
        wishes = _wishes(context, servable, message.model_version)
        parameters = parameters_of(servable, head, wishes, client=client)
        parameters = _until(servable, parameters, context.time_remaining())
        slow = reader.slow and request.size >= HEAVY_BYTES
        deferred = _begin(servable, self._engine.fetcher, request, parameters, slow)
        if wishes.once:
            deferred.addCallback(say_replayed, context)
        return await _written(await outcome(deferred), head, servable, parameters, around)

    def _find(self, name: str, version: str) -> tuple[Servable, InferMessageReader]:
        """Return the servable for a model, and the reader of its requests.

        Both are looked up once an epoch, and kept by the version's number and by no version: at
        most two entries for each version that serves. Other texts for a version (`007`) are looked
        up at each request, since a client could send any number of them. Raises as
        `Engine.ready_model` does.
        """
        if self._epoch.over:
            self._epoch = self._engine.epoch
            self._found.clear()
        found = self._found.get((name, version))
        if found is None:
            servable = self._engine.traffic.servable(name, version)
            number = servable.spec.version
            found = self._found.get((name, number))
            if found is None or found[0] is not servable:
                reader = InferMessageReader(servable.spec, servable.limits)
                found = servable, reader
                # Where versions share requests, the name is answered by none of them.
                if not servable.picks_version:
                    self._found[name, number] = found
            if not version:
                self._found[name, ""] = found
        return found


async def _written(
    response: InferenceResponse,
    head: InferHead,
    servable: Servable,
    parameters: Parameters,
    around: Around,
) -> InferAnswer:
    """Return the message that carries `response`; a large one is written beside the loop."""
    if head.heavy and is_heavy_answer(response):
        names = response.model, response.version
        heavy = write_heavy(servable, response, parameters, answer_pieces, head)
        del response  # it is let go of where it was copied, not on the loop
        pieces = await outcome(heavy)
        return await outcome(write_large(servable, _joined, names, pieces, around))
    if head.slow:
        write = partial(_write, head=head, around=around)
        written: Deferred[WrittenAnswer] = write_slow(response, servable, write, parameters)
    elif is_large_answer(response):
        written = write_large(servable, _write, response, head, around)
    else:
        return message_of(response, head)
    del response  # as above: it may be millions of texts
    return await outcome(written)


def _write(response: InferenceResponse, head: InferHead, around: Around) -> WrittenAnswer:
    names = response.model, response.version
    return _joined(names, answer_pieces(response, head), around)


def _joined(names: tuple[str, str], pieces: list[Buffer], around: Around) -> WrittenAnswer:
    # The library takes nothing but `bytes`, and copies them once more on the loop.
    return WrittenAnswer(*names, joined_bytes(around(pieces)))


def _wishes(context: Context, servable: Servable, version: str) -> StageWishes:
    """Return what the stages of `servable` read of the metadata of a call."""
    return StageWishes(
        key_of(context) if servable.reads_key else "",
        route_of(context) if servable.picks_version else "",
        servable.reads_freshness and fresh_of(context),
        once_key(once_of(context), version) if servable.reads_once else "",
    )


def _begin(
    servable: Servable,
    fetcher: InputFetcher,
    request: ParsedRequest,
    parameters: Parameters,
    slow: bool,
) -> Deferred[InferenceResponse]:
    """Decode the inputs where that holds nobody up, and have `servable` answer."""
    if request.head.references:
        return _fetch(servable, fetcher, request, parameters)
    size = request.size
    if request.typed:
        arguments = request.typed, request.head.binaries
        return servable.infer_heavy(size, parameters, None, typed_inputs, *arguments)
    if slow:
        return servable.infer_decoded(size, request.inputs, parameters)
    return servable.infer(request.inputs(), parameters)


def _fetch(
    servable: Servable, fetcher: InputFetcher, request: ParsedRequest, parameters: Parameters
) -> Deferred[InferenceResponse]:
    """Fetch the files that `request` names, and have `servable` answer."""
    if request.typed:
        raise InvalidInput("inputs: expected raw_input_contents beside files; got large contents")
    references = request.head.references
    addresses = [each.address for each in references]
    about: About = None
    if servable.decoded is not None and not request.raw:
        about = repr(references), b""
    arguments = (request.size, parameters, about, _inputs_with_files, request)
    return infer_files(servable, fetcher, addresses, *arguments)


def _inputs_with_files(files: Files, request: ParsedRequest) -> Mapping[str, Array]:
    return sized(request.inputs(files))


def _until(servable: Servable, parameters: Parameters, remaining: float | None) -> Parameters:
    """Return the `parameters` of a request with the earlier deadline of its own and of the call's.

    The call has `remaining` seconds left (None: no end).
    """
    if remaining is None:
        return parameters
    own = parameters.deadline if parameters.deadline is not None else servable.deadline()
    return parameters._replace(deadline=min(servable.deadline(max(remaining, 0.0)), own))
