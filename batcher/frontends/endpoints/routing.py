"""From a call to its reply: find the route, call its endpoint, turn a failure into a reply.

The fast connection and Klein share the table of routes, the endpoints and `Router.answer`. So an
answer never depends on which of the two carried the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import unquote

from mypy_extensions import mypyc_attr
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure

from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.call import Call, Endpoint, Reply
from batcher.frontends.endpoints.failures import CLIENT_LEFT, FailureReply, failure_reply
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
    """

    method: str
    pattern: str
    endpoint: Endpoint
    summary: str
    operation: Operation
    fast: bool = False
    failure: FailureReply = failure_reply


@mypyc_attr(allow_interpreted_subclasses=True)
class Router:
    """Finds the route of a path, and answers a call by a route. Reactor thread.

    Attributes:
        routes: the table; where several rows match, the first counts.
        answer_log: counts every call that was answered.
    """

    def __init__(
        self, routes: tuple[Route, ...], answer_log: AnswerLog, expose_model_errors: bool = False
    ) -> None:
        """Answer by `routes`, and count in `answer_log`.

        `expose_model_errors` says whether a reply names class and message of a model's own
        exception.
        """
        self.routes = routes
        self.answer_log = answer_log
        self._expose_model_errors = expose_model_errors
        self._fast = [(route, route.pattern.split("/")) for route in routes if route.fast]
        # Clients use few paths; the bound is for a client that makes up ever new ones.
        self.match = lru_cache(maxsize=4096)(self._match)

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

    def _match(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
        """Return the fast route for `path` and the values that its pattern captures.

        None if Klein is to answer. `path` is still percent-encoded.
        """
        segments = path.split("/")
        for route, pattern in self._fast:
            if len(pattern) == len(segments) and route.method == method:
                captured = _captured(pattern, segments)
                if captured is not None:
                    return route, captured
        return None

    def _failed(
        self, failure: Failure, route: Route, call: Call, send: Callable[[Reply], Sent]
    ) -> Sent | Deferred[Sent] | Failure:
        if failure.check(CancelledError):
            self.answer_log.answered(route.pattern, "", CLIENT_LEFT, call.began, call)
            return failure
        assert failure.value is not None
        return self._answered(self._failure_reply(failure.value, route, call), route, call, send)

    def _answered(
        self, result: Any, route: Route, call: Call, send: Callable[[Reply], Sent]
    ) -> Sent | Deferred[Sent]:
        try:
            reply = result if type(result) is Reply else call.plan.reply(result)
        except Exception as err:  # a result that cannot be encoded is one more failure
            reply = self._failure_reply(err, route, call)
        if type(reply) is not Reply:  # a Deferred of the reply, which is long
            arguments = (route, call, send)
            written: Deferred[Sent] = reply.addCallbacks(
                self._answered, self._failed, arguments, errbackArgs=arguments
            )
            return written
        self.answer_log.answered(route.pattern, reply.model, reply.status, call.began, call)
        if call.head.request_id is not None:
            reply = with_request_id(reply, call.head.request_id)
        return send(reply)

    def _failure_reply(self, error: BaseException, route: Route, call: Call) -> Reply:
        return route.failure(error, call.head.headers, self._expose_model_errors)


def _captured(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    """Return the values that `pattern` captures from `segments`; None if the two do not match.

    Both have the same length.
    """
    captured = {}
    for want, have in zip(pattern, segments, strict=True):
        if want.startswith("{"):
            name, _, ending = want[1:].partition("}")
            value = have.removesuffix(ending)
            if not _is_segment(value) or f"{value}{ending}" != have:
                return None
            captured[name] = unquote(value)
        elif want != have:
            return None
    return captured


def _is_segment(text: str) -> bool:
    """Return whether a pattern may capture `text`.

    As in Klein, captured text is not empty, and has no slash when its percent codes are decoded.
    """
    return bool(text) and "/" not in unquote(text)


def with_request_id(reply: Reply, request_id: bytes | None) -> Reply:
    """Return `reply` with the `X-Request-Id` of its request; `reply` itself if that is None."""
    if request_id is None:
        return reply
    headers = (*reply.headers, (b"X-Request-Id", request_id))
    return Reply(reply.status, reply.content_type, reply.body, headers, reply.model)
