"""The native inference routes: decode, infer, encode."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred

from batcher.codecs.content import Content
from batcher.codecs.format_table import Format, decode_body
from batcher.codecs.negotiation import answer_format, media_type, request_format
from batcher.config.settings import ServerSettings
from batcher.core.request import NO_PARAMETERS, InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec
from batcher.errors import InvalidInput
from batcher.frontends.endpoints.call import Body, Call, CallHead, Reply
from batcher.serving.server import ModelServer

MAX_TIMEOUT_MS = 86_400_000.0
"""A day; a longer deadline is taken for a mistake."""

_DECIMAL = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A number as every language writes it; Python's own takes `1_000` and `nan`, too."""


class Plan:
    """What the head of a call says of how to answer it.

    True for all calls with that head, while no model changes.

    Attributes:
        generation: of the server, when this was worked out.
        served: the version of the model that answers.
        decode: body to inputs.
        key: whose quota it is charged to, if there are quotas; empty for none.
        exact: whether what `decode` returns is sure to fit the model's specification.
        pooled: whether `decode` is to run on the CPU pool.
        plain: whether it names neither a time nor a level.
        timeout: seconds until the request is worthless; None takes the model's default.
        priority: the request's level.
        timing: whether the answer carries `Server-Timing`.
    """

    __slots__ = (
        "_content_type",
        "_encode",
        "decode",
        "exact",
        "generation",
        "key",
        "plain",
        "pooled",
        "priority",
        "served",
        "timeout",
        "timing",
    )

    def __init__(
        self, head: CallHead, server: ModelServer, max_image_pixels: int, timing: bool
    ) -> None:
        """Work it out. Raises any ClientError or Unavailable that the head deserves."""
        name = head.arguments.get("name") or server.only_model()
        self.generation = server.generation
        self.served = server.ready_model(name, head.arguments.get("version", ""))
        spec = self.served.spec
        content_type = head.header(b"content-type")
        came_as = request_format(content_type, spec)
        answer_as = answer_format(head.header(b"accept"), came_as, spec)
        assert answer_as.encode is not None, (
            "only formats that can be written are chosen for answers"
        )
        self._encode = answer_as.encode
        self._content_type = answer_as.media_type.encode()
        self.decode = _decoder(came_as, spec, content_type, max_image_pixels)
        self.exact = came_as.bind is not None
        self.pooled = came_as.pooled
        timeout, priority = head.header(b"x-timeout-ms"), head.header(b"x-priority")
        self.timeout = _timeout(timeout) if timeout else None
        self.priority = _priority(priority, self.served.max_level) if priority else 0
        self.plain = self.timeout is None and not self.priority
        self.key = head.key()
        self.timing = timing or head.headers.get(b"x-timing") == b"1"

    def reply(self, response: InferenceResponse) -> Reply:
        """Return the answer that carries `response`."""
        spec = self.served.spec
        headers = ((b"Server-Timing", _server_timing(response)),) if self.timing else ()
        return Reply(200, self._content_type, self._encode(response, spec), headers, spec.name)


class Predict:
    """`POST …/predict`: the body in any format of the native route, the answer in the one that was asked for."""

    def __init__(self, server: ModelServer, settings: ServerSettings) -> None:
        """Answer from `server`; `settings` say how much a picture may hold and what answers carry."""
        self._server = server
        self._max_image_pixels = settings.max_image_pixels
        self._always_timing = settings.server_timing

    def __call__(self, call: Call) -> Deferred[InferenceResponse]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        server = self._server
        plan: Plan | None = call.head.plan
        if plan is None or plan.generation != server.generation:
            plan = call.head.plan = Plan(
                call.head, server, self._max_image_pixels, self._always_timing
            )
        call.plan = plan
        plain = plan.plain and (not plan.key or server.quotas is None)
        parameters = NO_PARAMETERS if plain else self._parameters(plan, call)
        if not plan.pooled:
            return server.infer_on(plan.served, plan.decode(call.body), parameters, plan.exact)
        return self._infer_pooled(plan, call, parameters)

    def _infer_pooled(
        self, plan: Plan, call: Call, parameters: Parameters
    ) -> Deferred[InferenceResponse]:
        def infer(inputs: dict[str, Array]) -> Deferred[InferenceResponse]:
            return server.infer_on(server.successor(served), inputs, parameters)

        server, served = self._server, plan.served
        deadline = server.deadline(served, plan.timeout)
        parameters = parameters._replace(deadline=deadline)
        return server.run_on_pool(
            len(call.body), deadline, partial(plan.decode, call.body)
        ).addCallback(infer)

    def _parameters(self, plan: Plan, call: Call) -> Parameters:
        deadline = (
            self._server.deadline(plan.served, plan.timeout) if plan.timeout is not None else None
        )
        return Parameters(deadline, plan.priority, call.head.header(b"x-request-id"), plan.key)


def _decoder(
    came_as: Format, spec: ModelSpec, content_type: str, max_image_pixels: int
) -> Callable[[Body], dict[str, Array]]:
    if came_as.bind is not None:
        return came_as.bind(spec)
    name, parameters = media_type(content_type)
    return lambda body: decode_body(
        came_as, Content(body, name, parameters, max_image_pixels), spec
    )


def _server_timing(response: InferenceResponse) -> bytes:
    return b'queue;dur=%.3f, compute;dur=%.3f, batch;desc="%d"' % (
        response.queue * 1e3,
        response.compute * 1e3,
        response.batch_size,
    )


def _timeout(text: str) -> float:
    """Return `X-Timeout-Ms` in seconds."""
    milliseconds = float(text) if _DECIMAL.fullmatch(text) else -1.0
    if not 0 < milliseconds <= MAX_TIMEOUT_MS:
        raise InvalidInput(
            f"X-Timeout-Ms: expected milliseconds above 0 and up to {MAX_TIMEOUT_MS:.0f}; got "
            f"{text!r:.80}"
        )
    return milliseconds / 1e3


def _priority(text: str, bulk: int) -> int:
    if text == "bulk":
        return bulk
    if not (text.isdecimal() and text.isascii() and len(text) < 10 and 1 <= int(text) <= bulk):
        raise InvalidInput(
            f"X-Priority: expected 1 (the highest) to {bulk - 1}, or {bulk} or `bulk`; got "
            f"{text!r:.80}"
        )
    return int(text)
