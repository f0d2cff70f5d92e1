"""The native inference routes: decode the body, infer, encode the answer.

Clients send the same head again and again. So everything that follows from a head (model, formats,
priority) is worked out once, as a `Plan`, and the head keeps its plan. After that a request costs a
decoding, one call of `Servable.infer`, and an encoding.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from batcher.codecs.content import Buffer, Content
from batcher.codecs.content_coding import HEAVY_BYTES, Body, CodedBody, plain_body
from batcher.codecs.format_table import Format, decode_body
from batcher.codecs.formats import octet_stream
from batcher.codecs.formats.base64_pictures import may_have_pictures
from batcher.codecs.formats.references import may_name_files
from batcher.codecs.heavy import decode_heavy, encode_heavy, is_heavy_answer, is_large_answer
from batcher.codecs.joining import LARGE_BYTES, joined
from batcher.codecs.negotiation import answer_format, media_type, request_format
from batcher.config.settings import ServerSettings
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.digests import digest_of
from batcher.core.error_text import brief
from batcher.core.request import NO_PARAMETERS, InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec
from batcher.errors import InvalidInput
from batcher.frontends.endpoints.call import (
    CACHE_FIELD,
    Call,
    CallHead,
    Fields,
    Reply,
    answer_fields,
)
from batcher.frontends.endpoints.client_address import client_of
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.fetched import infer_body
from batcher.frontends.endpoints.heavy_answers import write_heavy, write_large
from batcher.frontends.endpoints.stage_wishes import wishes_of
from batcher.serving.references.fetcher import InputFetcher
from batcher.serving.servable import Servable

MAX_TIMEOUT_MS = 86_400_000.0
"""One day, in milliseconds; a longer timeout is surely a mistake."""

_DECIMAL = re.compile(r"(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A number as every language writes it; Python's `float` takes `1_000` and `nan`, too."""

MAX_NUMBER_CHARS = 64
"""Longest number that is read: a double needs 24 characters."""


class PlanWishes(NamedTuple):
    """What plans follow besides the heads of calls.

    Attributes:
        max_image_pixels: most pixels of one picture.
        timing: whether every answer has `Server-Timing`.
        csv_header: `present` or `absent`, what CSV has where its media type does not say; empty for
            what each codec does by itself.
        line_for_line: as in Content.
    """

    max_image_pixels: int
    timing: bool
    csv_header: str
    line_for_line: bool


class Plan:
    """How to answer all calls that have one and the same head, while an epoch lasts.

    Attributes:
        epoch: the time in which the plan is true.
        servable: answers the calls.
        decode: makes the inputs from a body.
        exact: whether inputs from `decode` always fit the model's specification.
        pooled: whether a body is looked at first: `decode` may be too slow for the loop, and then
            runs on the CPU pool; or the body may name files, which have to be fetched.
        is_text: returns whether a body costs a step for each value.
    """

    __slots__ = (
        "_content",
        "_content_type",
        "_copies",
        "_encode",
        "_fetcher",
        "_format_name",
        "_has_headers",
        "_plain",
        "_pooled",
        "_pooled_bytes",
        "_priority",
        "_reads_client",
        "_reads_pictures",
        "_stages",
        "_timeout",
        "_timing",
        "_writes_text",
        "decode",
        "epoch",
        "exact",
        "is_text",
        "pooled",
        "servable",
    )

    def __init__(self, head: CallHead, engine: Engine, wishes: PlanWishes) -> None:
        """Work the plan out from `head`; raises ClientError or Unavailable."""
        self.epoch = engine.epoch
        self.servable = _servable(head, engine)
        spec = self.servable.spec
        content_type = head.header(b"content-type")
        body_format = request_format(content_type, spec)
        reply_format = answer_format(head.header(b"accept"), body_format, spec, wishes.csv_header)
        assert reply_format.encode is not None  # `answer_format` chooses what can be written
        self._encode = reply_format.encode
        self._format_name, self._content_type = _names_of(reply_format)
        self._writes_text = reply_format.writes_text(spec.outputs)
        self._copies = reply_format.encode is not octet_stream.encode
        self._content = _content(content_type, wishes, self.servable.limits)
        self._read_bodies_as(body_format, engine.fetcher)
        self._timeout, self._priority = _wishes(head, self.servable)
        self._stages = wishes_of(head, self.servable)
        self._reads_client = self.pooled or self.servable.reads_client
        named = self._timeout or self._priority or any(self._stages) or self._reads_client
        self._plain = not named
        self._timing = wishes.timing or head.headers.get(b"x-timing") == b"1"
        self._has_headers = self._timing or self.servable.picks_version or self._stages.once

    def _read_bodies_as(self, body_format: Format, fetcher: InputFetcher) -> None:
        """Keep what says how bodies of `body_format` are read."""
        spec = self.servable.spec
        self.decode = _decoder(body_format, spec, self._content)
        self.is_text, self._reads_pictures = body_format.is_text, body_format.reads_pictures
        self.exact = body_format.bind is not None and len(spec.required) == len(spec.inputs)
        self._pooled, self._pooled_bytes = body_format.is_pooled(spec), body_format.pooled_bytes
        self._fetcher = fetcher if fetcher.is_on and body_format.names_files else None
        self.pooled = self._pooled or self._fetcher is not None

    def parameters(self, peer: str) -> Parameters:
        """Return the parameters of a call that comes now from `peer`, an address."""
        # Most calls name no parameter, and share one object that nobody has to check again.
        if self._plain:
            return NO_PARAMETERS
        deadline = self.servable.deadline(self._timeout) if self._timeout is not None else None
        client = client_of(peer) if self._reads_client else ""
        return self._stages.parameters(deadline, self._priority, client)

    def infer_large(self, body: Body, parameters: Parameters) -> Deferred[InferenceResponse]:
        """Answer a body that is large, coded, or of a format for the CPU pool."""
        servable, is_coded = self.servable, isinstance(body, CodedBody)
        # A longer body is read in another process, which fetches nothing.
        if self._fetcher is not None and not is_coded and len(body) < HEAVY_BYTES:
            if may_name_files(plain_body(body)):
                return infer_body(servable, self._fetcher, body, self._content, parameters)
            if not self._pooled:
                return servable.infer(self.decode(plain_body(body)), parameters, self.exact)
        digest = None if is_coded or servable.decoded is None else self._digest(body)
        if self.is_text is not None and (is_coded or self.is_text(plain_body(body))):
            arguments = (decode_heavy, body, self._content, servable.spec)
            return servable.infer_heavy(len(body), parameters, digest, *arguments)
        if is_coded or (self._pooled and self._is_slow(plain_body(body))):
            decode = partial(_decode_plain, self.decode, body)
            return servable.infer_decoded(len(body), decode, parameters, digest)
        return servable.infer(self.decode(plain_body(body)), parameters, self.exact)

    def _digest(self, body: Body) -> Callable[[], bytes]:
        """Return what gives a digest of `body` and of all that says how it is decoded."""
        return partial(digest_of, repr(self._content), plain_body(body))

    def _is_slow(self, body: Buffer) -> bool:
        """Return whether decoding `body`, of a format that is pooled, is too slow for the loop."""
        if len(body) < self._pooled_bytes:
            return False
        # Text is only if it has pictures in it.
        return not self._reads_pictures or may_have_pictures(body, self.servable.spec)

    def reply(self, response: InferenceResponse) -> Reply | Deferred[Reply]:
        """Return the reply that carries `response`, or a Deferred of a reply that is large."""
        spec = self.servable.spec
        headers: Fields = self._headers(response) if self._has_headers else ()
        if self._writes_text and is_heavy_answer(response):
            arguments = (encode_heavy, self._format_name, spec)
            # No closure: one would be made at each call, also where the answer is short.
            return write_heavy(self.servable, response, NO_PARAMETERS, *arguments).addCallback(
                self._reply, headers
            )
        if self._copies and is_large_answer(response):
            return write_large(self.servable, self._encode, response, spec).addCallback(
                self._reply, headers
            )
        body = self._encode(response, spec)
        # A view would hold the outputs of the whole batch until a slow client has read its answer.
        if not isinstance(body, bytes) and len(body) >= LARGE_BYTES:
            return write_large(self.servable, joined, (body,)).addCallback(self._reply, headers)
        return Reply(200, self._content_type, body, headers, spec.name)

    def _headers(self, response: InferenceResponse) -> Fields:
        """Return the header fields that a client has asked for, or the settings have."""
        timing: Fields = ((b"Server-Timing", _server_timing(response)),) if self._timing else ()
        if self._timing and self.servable.reads_freshness:
            origin = response.origin if response.origin in ("hit", "joined") else "miss"
            timing = (*timing, (CACHE_FIELD, origin.encode()))
        picks = self.servable.picks_version
        return (*timing, *answer_fields(response, picks, self._stages.once))

    def _reply(self, body: Buffer, headers: Fields) -> Reply:
        return Reply(200, self._content_type, body, headers, self.servable.spec.name)


class Predict:
    """`POST …/predict`: body and answer in any format of the native route."""

    def __init__(
        self,
        engine: Engine,
        settings: ServerSettings,
        csv_header: str = "",
        line_for_line: bool = False,
    ) -> None:
        """Answer by the models of `engine`.

        `settings` bound the pixels of a picture, and say whether each answer has `Server-Timing`;
        `csv_header` and `line_for_line` are as in PlanWishes.
        """
        self._engine = engine
        self._wishes = PlanWishes(
            settings.max_image_pixels, settings.server_timing, csv_header, line_for_line
        )

    def __call__(self, call: Call) -> Deferred[InferenceResponse]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        plan: Plan | None = call.head.plan
        # After its epoch a plan may name a version that is gone.
        if plan is None or plan.epoch.over:
            plan = call.head.plan = Plan(call.head, self._engine, self._wishes)
        call.plan = plan  # the head may have a newer plan before the answer is there
        parameters = plan.parameters(call.peer)
        if plan.pooled or call.size >= HEAVY_BYTES:
            return plan.infer_large(call.body, parameters._replace(client=client_of(call.peer)))
        return plan.servable.infer(plan.decode(call.body), parameters, plan.exact)


def _servable(head: CallHead, engine: Engine) -> Servable:
    """Return what answers calls with `head`; raises ClientError or Unavailable."""
    name, version = head.model()
    return engine.traffic.servable(name or engine.only_model(), version)


def _names_of(entry: Format) -> tuple[str, bytes]:
    """Return the name of a format, and the `Content-Type` of its answers."""
    return entry.media_type, media_type(entry.media_type)[0].encode()


def _content(content_type: str, wishes: PlanWishes, limits: DecodingLimits) -> Content:
    """Return what a head says of its body, without the body."""
    name, parameters = media_type(content_type)
    # A plain dictionary can be pickled.
    known = {"header": wishes.csv_header} if wishes.csv_header else {}
    return Content(
        b"",
        name,
        {**known, **parameters},
        wishes.max_image_pixels,
        limits,
        wishes.line_for_line,
    )


def _decoder(
    body_format: Format, spec: ModelSpec, content: Content
) -> Callable[[Any], dict[str, Array]]:
    if body_format.bind is not None:
        return body_format.bind(body_format.spec_of_body(spec))
    return lambda body: decode_body(body_format, content._replace(body=body), spec)


def _decode_plain(decode: Callable[[Buffer], dict[str, Array]], body: Body) -> dict[str, Array]:
    return decode(plain_body(body))


def _server_timing(response: InferenceResponse) -> bytes:
    whole = _times("", response.queue, response.compute, response.batch_size)
    steps = [
        _times(f"{name}.", queue, compute, rows) for name, queue, compute, rows in response.steps
    ]
    return ", ".join([whole, *steps]).encode()


def _times(prefix: str, queue: float, compute: float, batch_size: int) -> str:
    """Return the times of the whole, or of a step whose name the `prefix` has."""
    worked = f"{prefix}compute;dur={compute * 1e3:.3f}"
    if prefix and not batch_size:  # no model
        return worked
    return f'{prefix}queue;dur={queue * 1e3:.3f}, {worked}, {prefix}batch;desc="{batch_size}"'


def _wishes(head: CallHead, servable: Servable) -> tuple[float | None, int]:
    """Return timeout, in seconds, and level that `head` asks for; raises InvalidInput."""
    timeout, priority = head.header(b"x-timeout-ms"), head.header(b"x-priority")
    return (
        _timeout(timeout) if timeout else None,
        _priority(priority, servable.max_level) if priority else 0,
    )


def _timeout(text: str) -> float:
    """Return `X-Timeout-Ms` in seconds."""
    is_number = len(text) <= MAX_NUMBER_CHARS and _DECIMAL.fullmatch(text)
    milliseconds = float(text) if is_number else -1.0
    if not 0 < milliseconds <= MAX_TIMEOUT_MS:
        raise InvalidInput(
            f"X-Timeout-Ms: expected milliseconds above 0 and up to {MAX_TIMEOUT_MS:.0f}; got "
            f"{brief(text)}"
        )
    return milliseconds / 1e3


def _priority(text: str, bulk: int) -> int:
    """Return `X-Priority` as a level: 1, the highest, to `bulk`, the level of the bulk class."""
    if text == "bulk":
        return bulk
    if not (text.isdecimal() and text.isascii() and len(text) < 10 and 1 <= int(text) <= bulk):
        raise InvalidInput(
            f"X-Priority: expected 1 (the highest) to {bulk - 1}, or {bulk} or `bulk`; got "
            f"{brief(text)}"
        )
    return int(text)
