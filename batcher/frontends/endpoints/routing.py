"""The routing table, shared by the fast connection and by Klein, so that an answer never depends on which carried it."""

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
from batcher.frontends.endpoints.openapi.operations import Described

Sent = TypeVar("Sent")


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table.

    Attributes:
        method: the method it answers.
        pattern: its path; `{name}` stands for one segment, or the part of one before what follows.
        endpoint: what it does.
        summary: one sentence for the documentation.
        described: what `/openapi.json` says of it, as `operations.py` has it.
        fast: whether the fast connection calls the endpoint itself; the others are Klein's.
        failure: makes the reply of an error: of the error, the request's headers, and whether a
            model's own are told.
    """

    method: str
    pattern: str
    endpoint: Endpoint
    summary: str
    described: Described
    fast: bool = False
    failure: FailureReply = failure_reply


@mypyc_attr(allow_interpreted_subclasses=True)
class Router:
    """Finds the route of a path, and answers a call through it."""

    def __init__(
        self, routes: tuple[Route, ...], journal: AnswerLog, expose_model_errors: bool = False
    ) -> None:
        """Hold `routes`; every answered call is told to `journal`."""
        self.routes = routes
        self.journal = journal
        self._expose_model_errors = expose_model_errors
        self._fast = [(route, route.pattern.split("/")) for route in routes if route.fast]
        self.match = lru_cache(maxsize=4096)(self._match)

    def answer(self, route: Route, call: Call, send: Callable[[Reply], Sent]) -> Deferred[Sent]:
        """Call the route's endpoint, see to its failures, and give the reply to `send`.

        Returns:
            A Deferred of what `send` returned. It fails with CancelledError when it was cancelled,
            and `send` is not called.
        """
        try:
            deferred = route.endpoint(call)
        except Exception:  # whatever an endpoint raises is a failure like those that come later
            deferred = fail()
        # of text that became arrays nothing waits with them: the queue's bound would not know of it
        call.body = b""
        arguments = (route, call, send)
        return deferred.addCallbacks(self._answered, self._failed, arguments, errbackArgs=arguments)

    def _match(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
        """Return the fast route for `path`, as it was sent, and what its pattern captures.

        None if Klein is to answer.
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
    ) -> Sent | Failure:
        if failure.check(CancelledError):
            self.journal.answered(route.pattern, "", CLIENT_LEFT, call.began, call)
            return failure
        assert failure.value is not None
        return self._answered(self._failure_reply(failure.value, route, call), route, call, send)

    def _answered(
        self, result: Any, route: Route, call: Call, send: Callable[[Reply], Sent]
    ) -> Sent:
        try:
            reply: Reply = result if type(result) is Reply else call.plan.reply(result)
        except Exception as err:  # a result that cannot be written is one more way to fail
            reply = self._failure_reply(err, route, call)
        self.journal.answered(route.pattern, reply.model, reply.status, call.began, call)
        if call.head.request_id is not None:
            reply = with_request_id(reply, call.head.request_id)
        return send(reply)

    def _failure_reply(self, error: BaseException, route: Route, call: Call) -> Reply:
        return route.failure(error, call.head.headers, self._expose_model_errors)


def _captured(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    """Return what `pattern` captures of as many `segments`; None if they are of another path."""
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
    """Whether `text` may stand for a captured segment.

    Not empty, and one segment once it is decoded, as Klein has it.
    """
    return bool(text) and "/" not in unquote(text)


def with_request_id(reply: Reply, request_id: bytes | None) -> Reply:
    """Return `reply` with the `X-Request-Id` of its request, if that had one."""
    if request_id is None:
        return reply
    headers = (*reply.headers, (b"X-Request-Id", request_id))
    return Reply(reply.status, reply.content_type, reply.body, headers, reply.model)
