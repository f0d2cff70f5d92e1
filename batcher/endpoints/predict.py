"""The native inference routes: decode, infer, encode."""

from __future__ import annotations

from math import isfinite

from twisted.internet.defer import Deferred

from batcher.codecs.content import Content
from batcher.codecs.formats import Format, decode_body
from batcher.codecs.negotiation import answer_format, media_type, request_format
from batcher.config.settings import ServerSettings
from batcher.endpoints.call import Call, Reply
from batcher.errors import InvalidInput
from batcher.request import InferenceResponse, Parameters, Timing
from batcher.served import ServedModel
from batcher.server import ModelServer
from batcher.spec import Array

MAX_TIMEOUT_MS = 86_400_000.0
"""A day; a longer deadline is taken for a mistake."""


class Predict:
    """`POST …/predict`: the body in any format of the native route, the answer in the one that was asked for."""

    def __init__(self, server: ModelServer, settings: ServerSettings) -> None:
        """Answer from `server`; `settings` say how much a picture may hold and what answers carry."""
        self._server = server
        self._max_image_pixels = settings.max_image_pixels
        self._always_timing = settings.server_timing

    def __call__(self, call: Call) -> Deferred[Reply]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        name = call.arguments.get("name") or self._server.only_model()
        served = self._server.ready_model(name, call.arguments.get("version", ""))
        content_type = call.header(b"content-type")
        came_as = request_format(content_type, served.spec)
        answer_as = answer_format(call.header(b"accept"), came_as, served.spec)
        parameters = self._parameters(call, served)
        content = Content(call.body, *media_type(content_type), self._max_image_pixels)
        inferred = self._infer(served, came_as, content, parameters)
        timing = self._always_timing or call.headers.get(b"x-timing") == b"1"
        return inferred.addCallback(_encode, served, answer_as, timing)

    def _infer(
        self, served: ServedModel, came_as: Format, content: Content, parameters: Parameters
    ) -> Deferred[InferenceResponse]:
        name, version = served.spec.name, served.spec.version
        if not came_as.pooled:
            inputs = decode_body(came_as, content, served.spec)
            return self._server.infer(name, inputs, version, parameters)

        def infer(inputs: dict[str, Array]) -> Deferred[InferenceResponse]:
            return self._server.infer(name, inputs, version, parameters)

        deadline = parameters.deadline or self._server.deadline(served)
        parameters = parameters._replace(deadline=deadline)
        decoded = self._server.run_on_pool(len(content.body), deadline, lambda: decode_body(came_as, content, served.spec))
        return decoded.addCallback(infer)

    def _parameters(self, call: Call, served: ServedModel) -> Parameters:
        timeout, priority = call.header(b"x-timeout-ms"), call.header(b"x-priority")
        return Parameters(
            deadline=self._server.deadline(served, _timeout(timeout)) if timeout else None,
            priority=_priority(priority, served.max_level) if priority else 0,
            request_id=call.header(b"x-request-id"),
        )


def _encode(response: InferenceResponse, served: ServedModel, answer_as: Format, timing: bool) -> Reply:
    assert answer_as.encode is not None, "only formats that can be written are chosen for answers"
    headers = ((b"Server-Timing", _server_timing(response.timing)),) if timing else ()
    body = answer_as.encode(response, served.spec)
    return Reply(200, answer_as.media_type.encode(), body, headers, served.spec.name)


def _server_timing(timing: Timing) -> bytes:
    return b'queue;dur=%.3f, compute;dur=%.3f, batch;desc="%d"' % (
        timing.queue * 1e3,
        timing.compute * 1e3,
        timing.batch_size,
    )


def _timeout(text: str) -> float:
    """Return `X-Timeout-Ms` in seconds."""
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = -1.0
    if not (isfinite(milliseconds) and 0 < milliseconds <= MAX_TIMEOUT_MS):
        raise InvalidInput(f"X-Timeout-Ms: expected milliseconds above 0 and up to {MAX_TIMEOUT_MS:.0f}; got {text!r:.80}")
    return milliseconds / 1e3


def _priority(text: str, levels: int) -> int:
    if not (text.isdecimal() and text.isascii() and len(text) < 10 and 1 <= int(text) <= levels):
        raise InvalidInput(f"X-Priority: expected 1 (the highest) to {levels}; got {text!r:.80}")
    return int(text)
