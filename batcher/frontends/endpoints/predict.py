"""The native inference routes: decode the body, infer, encode the answer.

Clients send the same head again and again. So everything that follows from a head (model, formats,
priority) is worked out once, as a `Plan`, and the head keeps its plan. After that a request costs a
decoding, one call of `Servable.infer`, and an encoding.
"""

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
from batcher.core.spec import Array
from batcher.errors import InvalidInput
from batcher.frontends.endpoints.call import Body, Call, CallHead, Reply
from batcher.frontends.endpoints.client_address import client_of
from batcher.frontends.endpoints.engine import Engine
from batcher.serving.servable import Servable

MAX_TIMEOUT_MS = 86_400_000.0
"""One day, in milliseconds; a longer timeout is surely a mistake."""

_DECIMAL = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A number as every language writes it; Python's `float` takes `1_000` and `nan`, too."""


class Plan:
    """How to answer all calls that have one and the same head, while an epoch lasts.

    Attributes:
        epoch: the time in which the plan is true.
        servable: answers the calls.
        decode: makes the inputs from a body.
        exact: whether inputs from `decode` always fit the model's specification.
        pooled: whether `decode` is too slow for the loop and runs on the CPU pool.
    """

    __slots__ = (
        "_content_type",
        "_encode",
        "_key",
        "_plain",
        "_priority",
        "_reads_client",
        "_timeout",
        "_timing",
        "decode",
        "epoch",
        "exact",
        "pooled",
        "servable",
    )

    def __init__(self, head: CallHead, engine: Engine, max_image_pixels: int, timing: bool) -> None:
        """Work the plan out from `head`; raises ClientError or Unavailable."""
        name = head.arguments.get("name") or engine.only_model()
        self.epoch = engine.epoch
        self.servable: Servable = engine.ready_model(name, head.arguments.get("version", ""))
        spec = self.servable.spec
        content_type = head.header(b"content-type")
        body_format = request_format(content_type, spec)
        reply_format = answer_format(head.header(b"accept"), body_format, spec)
        # `answer_format` chooses among formats that can be written.
        assert reply_format.encode is not None
        self._encode = reply_format.encode
        self._content_type = reply_format.media_type.encode()
        self.decode = _decoder(body_format, self.servable, content_type, max_image_pixels)
        self.exact = body_format.bind is not None
        self.pooled = body_format.pooled
        timeout, priority = head.header(b"x-timeout-ms"), head.header(b"x-priority")
        self._timeout = _timeout(timeout) if timeout else None
        self._priority = _priority(priority, self.servable.max_level) if priority else 0
        self._key = head.key() if self.servable.reads_key else ""
        self._reads_client = self.pooled or self.servable.reads_client
        self._plain = not (
            self._timeout is not None or self._priority or self._key or self._reads_client
        )
        self._timing = timing or head.headers.get(b"x-timing") == b"1"

    def parameters(self, peer: str) -> Parameters:
        """Return the parameters of a call that comes now from `peer`, an address."""
        # Most calls name no parameter, and share one object that nobody has to check again.
        if self._plain:
            return NO_PARAMETERS
        deadline = self.servable.deadline(self._timeout) if self._timeout is not None else None
        client = client_of(peer) if self._reads_client else ""
        return Parameters(deadline, self._priority, self._key, client)

    def reply(self, response: InferenceResponse) -> Reply:
        """Return the reply that carries `response`."""
        spec = self.servable.spec
        headers = ((b"Server-Timing", _server_timing(response)),) if self._timing else ()
        return Reply(200, self._content_type, self._encode(response, spec), headers, spec.name)


class Predict:
    """`POST …/predict`: body and answer in any format of the native route."""

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        """Answer by the models of `engine`.

        `settings` bound the pixels of a picture, and say whether each answer has `Server-Timing`.
        """
        self._engine = engine
        self._max_image_pixels = settings.max_image_pixels
        self._always_timing = settings.server_timing

    def __call__(self, call: Call) -> Deferred[InferenceResponse]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        plan: Plan | None = call.head.plan
        # After its epoch a plan may name a version that is gone.
        if plan is None or plan.epoch.over:
            plan = call.head.plan = Plan(
                call.head, self._engine, self._max_image_pixels, self._always_timing
            )
        call.plan = plan  # the head may have a newer plan before the answer is there
        parameters = plan.parameters(call.peer)
        if plan.pooled:
            decode = partial(plan.decode, call.body)
            return plan.servable.infer_decoded(len(call.body), decode, parameters)
        return plan.servable.infer(plan.decode(call.body), parameters, plan.exact)


def _decoder(
    body_format: Format, servable: Servable, content_type: str, max_image_pixels: int
) -> Callable[[Body], dict[str, Array]]:
    spec, limits = servable.spec, servable.limits
    if body_format.bind is not None:
        return body_format.bind(spec)
    name, found = media_type(content_type)
    parameters = dict(found)  # a plain mapping can be sent to another process
    return lambda body: decode_body(
        body_format, Content(body, name, parameters, max_image_pixels, limits), spec
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
    """Return `X-Priority` as a level: 1, the highest, to `bulk`, the level of the bulk class."""
    if text == "bulk":
        return bulk
    if not (text.isdecimal() and text.isascii() and len(text) < 10 and 1 <= int(text) <= bulk):
        raise InvalidInput(
            f"X-Priority: expected 1 (the highest) to {bulk - 1}, or {bulk} or `bulk`; got "
            f"{text!r:.80}"
        )
    return int(text)
