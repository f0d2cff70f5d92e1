"""From a call to its reply: find the route, call its endpoint, turn a failure into a reply.

The fast connection and Klein share the table of routes, the endpoints and `Router.answer`. So an
answer never depends on which of the two carried the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote

from mypy_extensions import mypyc_attr
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure

from batcher.codecs.body_sink import BodySink, OpenSink
from batcher.core.bounded_cache import BoundedCache
from batcher.core.frames import clear_all_frames
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.call import Call, CallHead, Endpoint, Fields, Headers, Reply
from batcher.frontends.endpoints.cors import Cors
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.failures import (
    CLIENT_LEFT,
    FailureReply,
    allow_field,
    failure_reply,
)
from batcher.frontends.endpoints.openapi.operations import Operation

Sent = TypeVar("Sent")


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table.

    Attributes:
        method: the HTTP method that the route answers.
        pattern: the path; `{name}` captures one segment, `{name}:end` a segment up to `:end`.
        endpoint: answers a call.
        summary: one sentence for the documentation.
        operation: what `/openapi.json` says of the route; `operations.py` has the form.
        fast: whether the fast connection calls the endpoint itself; Klein calls all others.
        failure: makes the reply of an error.
        sink: returns what takes the body of a POST while it arrives; None where bodies are kept.
            Such a route has no names in its pattern.
    """

    method: str
    pattern: str
    endpoint: Endpoint
    summary: str
    operation: Operation
    fast: bool = False
    failure: FailureReply = failure_reply
    sink: OpenSink | None = None


Match = tuple[Route, Mapping[str, str]]

MAX_MATCH_BYTES = 4 << 20
"""Bytes of the paths whose route is known: some 2,000 paths. A client may make up new ones."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Router:
    """Finds the route of a path, and answers a call by a route. Reactor thread.

    Attributes:
        routes: the table; where several rows match, the first counts.
        answer_log: counts every call that was answered.
        disclosure: decides what clients learn of errors.
    """

    def __init__(
        self,
        routes: tuple[Route, ...],
        answer_log: AnswerLog,
        disclosure: Disclosure,
        cors: Cors | None = None,
    ) -> None:
        """Answer by `routes`, and count in `answer_log`; `disclosure` tells clients of errors.

        `cors` says which pages of other origins may read replies; None lets no page.
        """
        self.routes = routes
        self.answer_log = answer_log
        self.disclosure = disclosure
        self._cors = cors
        self._patterns = [(route, route.pattern.split("/")) for route in routes]
        self._fast = [row for row in self._patterns if row[0].fast]
        self._sinks = {route.pattern: route.sink for route in routes if route.sink is not None}
        self._methods = _with_head([route.method for route in routes])
        self._matches: BoundedCache[tuple[str, str], Match | None] = BoundedCache(MAX_MATCH_BYTES)

    def answer(self, route: Route, call: Call, send: Callable[[Reply], Sent]) -> Deferred[Sent]:
        """Call the endpoint of `route`, and give its reply, or that of its failure, to `send`.

        Returns:
            A Deferred of the value that `send` returned. A Deferred that was cancelled fails with
            CancelledError, and `send` is not called.
        """
        try:
            deferred = route.endpoint(call)
        except Exception:  # what an endpoint raises is a failure like one that its Deferred has
            deferred = fail()
        # The endpoint has decoded the body. A body that stayed here beside its arrays, while the
        # request waits, would be memory that no bound of the queue counts.
        call.body = b""
        # Handed beside the callbacks: closures over them would cost more.
        arguments = (route, call, send)
        return deferred.addCallbacks(self._answered, self._failed, arguments, errbackArgs=arguments)

    def sink_of(self, path: str, headers: Headers) -> BodySink | None:
        """Return what takes the body of a POST on `path`; None if it is kept.

        Raises BatcherError: no such body is wanted.
        """
        sink = self._sinks.get(path)
        return None if sink is None else sink(headers)

    def marks(self, headers: Headers) -> Fields:
        """Return the header fields that the answer to a request with `headers` has in any case.

        They are the request's `X-Request-Id`, and what browsers look for.
        """
        request_id = headers.get(b"x-request-id")
        marks: Fields = () if request_id is None else ((b"X-Request-Id", request_id),)
        return marks if self._cors is None else (*marks, *self._cors.fields(headers))

    def methods_of(self, path: str) -> tuple[str, ...]:
        """Return the methods of the routes on `path`, sorted, `HEAD` beside each `GET`.

        `path` is still percent-encoded. Without a route there are none. A path that ends as a
        pattern demands has the methods of such patterns alone: of `/v1/models/m:predict`, nobody
        wants to hear that a model of the name `m:predict` would answer `GET`.
        """
        segments = segments_of(path)
        found = [row for row in self._patterns if captured(row[1], segments) is not None]
        ended = [row for row in found if any(map(_demands_end, row[1]))]
        return _with_head([route.method for route, _ in ended or found])

    def options(self, path: str, headers: Headers) -> Reply | None:
        """Return the reply to `OPTIONS` on `path`; None if there is no route. `/*` is any path."""
        methods = self._methods if path == "/*" else self.methods_of(path)
        if not methods:
            return None
        preflight = () if self._cors is None else self._cors.preflight(headers, methods)
        return Reply(204, b"", b"", (allow_field(methods), *preflight))

    def match(self, method: str, path: str) -> Match | None:
        """Return the fast route for `path` and the values that its pattern captures.

        None if Klein is to answer. `path` is still percent-encoded.
        """
        key = method, path
        found = self._matches.kept.get(key)
        if found is None and key not in self._matches.kept:
            found = self._match(method, path)
            # The path, the values captured from it (one odd letter makes each of them four times
            # as wide), and what holds them.
            self._matches.put(key, found, 1500 + 9 * len(path))
        return found

    def _match(self, method: str, path: str) -> Match | None:
        return _first(self._fast, method, path.split("/"))

    def find(self, method: str, path: str) -> Match | None:
        """Return the route for `path`, fast or not, and the values that its pattern captures."""
        return _first(self._patterns, method, segments_of(path))

    def _failed(
        self, failure: Failure, route: Route, call: Call, send: Callable[[Reply], Sent]
    ) -> Sent | Deferred[Sent] | Failure:
        if failure.check(CancelledError):
            model = self._model_of(route, call.head)
            self.answer_log.answered(route.pattern, model, CLIENT_LEFT, call.began, call)
            return failure
        assert failure.value is not None
        return self._answered(
            self.failure_reply(failure.value, route, call.head), route, call, send
        )

    def _answered(
        self, result: Any, route: Route, call: Call, send: Callable[[Reply], Sent]
    ) -> Sent | Deferred[Sent]:
        try:
            found = result if type(result) is Reply else call.plan.reply(result)
        except Exception as err:  # a result that cannot be encoded is one more failure
            found = self.failure_reply(err, route, call.head)
        if type(found) is not Reply:  # a Deferred of the reply, which is long
            arguments = (route, call, send)
            written: Deferred[Sent] = found.addCallbacks(
                self._answered, self._failed, arguments, errbackArgs=arguments
            )
            return written
        reply: Reply = found  # as `Any`, each of its attributes would be looked up by name
        began, headers = call.began, reply.headers
        self.answer_log.answered(route.pattern, reply.model, reply.status, began, call, headers)
        if call.head.marks:
            reply = marked(reply, call.head.marks)
        return send(reply)

    def failure_reply(self, error: BaseException, route: Route, head: CallHead) -> Reply:
        """Return the reply to a call of `route` that failed with `error`.

        The frames of `error` let go of the body: refused bodies stayed until the collector came.
        """
        reply = route.failure(error, head.headers, self.disclosure)
        clear_all_frames(error)
        model = self._model_of(route, head)
        return Reply(reply.status, reply.content_type, reply.body, reply.headers, model)

    def _model_of(self, route: Route, head: CallHead) -> str:
        """Return the name of the model that a call is for; empty if it is for none."""
        if not route.fast and "name" not in head.arguments:
            return ""
        return self.answer_log.model_named(head.arguments.get("name", ""))


def _first(rows: list[tuple[Route, list[str]]], method: str, segments: list[str]) -> Match | None:
    """Return the first route of `rows` for `method` whose pattern captures `segments`."""
    for route, pattern in rows:
        if route.method == method:
            arguments = captured(pattern, segments)
            if arguments is not None:
                return route, arguments
    return None


def _with_head(methods: list[str]) -> tuple[str, ...]:
    """Return `methods`, each once and sorted, and `HEAD` where `GET` is one of them."""
    found = set(methods)
    return tuple(sorted(found | {"HEAD"} if "GET" in found else found))


def segments_of(path: str) -> list[str]:
    """Return the segments of `path`, which is still percent-encoded.

    A colon may be encoded: many clients encode that of `{name}:predict`.
    """
    return path.replace("%3A", ":").replace("%3a", ":").split("/")


def captured(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    """Return the values that `pattern` captures from `segments`; None if the two do not match.

    The segments are those of the path as the client sent it. A proxy that guards a path reads the
    same: a path with an empty segment, or with an encoded slash or letter where the pattern has a
    plain one, is another path and has no route.
    """
    if len(pattern) != len(segments):
        return None
    values: dict[str, str] = {}
    for want, have in zip(pattern, segments, strict=True):
        if want.startswith("{"):
            name, _, ending = want[1:].partition("}")
            value = have.removesuffix(ending)
            if not _is_segment(value) or f"{value}{ending}" != have:
                return None
            values[name] = unquote(value)
        elif want != have:
            return None
    return values


def _demands_end(segment: str) -> bool:
    """Return whether `segment` of a pattern captures the text up to a certain end."""
    return segment.startswith("{") and not segment.endswith("}")


def _is_segment(text: str) -> bool:
    """Return whether a pattern may capture `text`.

    As in Klein, captured text is not empty, and has no slash when its percent codes are decoded.
    """
    return bool(text) and "/" not in unquote(text)


def marked(reply: Reply, marks: Fields) -> Reply:
    """Return `reply` with the header fields `marks` as well."""
    headers = (*reply.headers, *marks)
    return Reply(reply.status, reply.content_type, reply.body, headers, reply.model, reply.file)
