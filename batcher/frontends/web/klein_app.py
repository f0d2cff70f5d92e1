"""Klein: every route as twisted.web sees it.

The fast connection sends here what it does not answer itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.web.server import Site
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from batcher.codecs.content_coding import Body, body_decoder
from batcher.errors import BatcherError, MalformedHttp, UnknownRoute
from batcher.errors import MethodNotAllowed as MethodUnknown
from batcher.frontends.endpoints.call import Call, CallHead, Reply
from batcher.frontends.endpoints.failures import failure_reply_on
from batcher.frontends.endpoints.routing import Route, Router, with_request_id


def klein_app(router: Router, max_body: int) -> Klein:
    """Return a Klein application with every route of `router`.

    Mount its `resource()` wherever twisted.web runs.
    """
    app = Klein()
    # Else a path with an empty segment is redirected to a path that the client did not ask for.
    app.url_map.merge_slashes = False
    for route in router.routes:
        pattern = route.pattern.replace("{", "<").replace("}", ">")
        app.route(pattern, methods=[route.method], endpoint=f"{route.method} {pattern}")(
            _handler(router, route, max_body)
        )

    def unrouted(request: Any, failure: Failure) -> bytes:
        return _answer_unrouted(router, request, failure)

    app.handle_errors(HTTPException)(unrouted)
    return app


def _answer_unrouted(router: Router, request: Any, failure: Failure) -> bytes:
    error = _routing_error(request, failure)
    head = _call_head(request, {})
    began = router.answer_log.seconds()
    call = Call(head, b"", began, _peer(request))
    router.answer_log.answered("", "", error.http_status, began, call)
    reply = failure_reply_on(head.path)(error, head.headers, False)
    return _write(with_request_id(reply, head.request_id), request)


def klein_site(router: Router, max_body: int) -> Site:
    """Return a twisted.web site with every route; bodies have at most `max_body` bytes."""
    site = Site(klein_app(router, max_body).resource(), parsePOSTFormSubmission=False)
    site.displayTracebacks = False
    return site


def _handler(router: Router, route: Route, max_body: int) -> Callable[..., Deferred[bytes]]:
    def handle(request: Any, **arguments: str) -> Deferred[bytes]:
        head = _call_head(request, arguments)
        began = router.answer_log.seconds()
        try:
            call = Call(head, _body(request, head, max_body), began, _peer(request))
        except BatcherError as err:
            call = Call(head, b"", began, _peer(request))
            router.answer_log.answered(route.pattern, "", err.http_status, began, call)
            reply = with_request_id(route.failure(err, head.headers, False), head.request_id)
            return succeed(_write(reply, request))
        return router.answer(route, call, partial(_write, request=request))

    return handle


def _body(request: Any, head: CallHead, limit: int) -> Body:
    """Return the body without its content coding, unless the body is large.

    A small body that the fast connection hands over has no coding any more.
    """
    decoder = body_decoder(head.header(b"content-encoding"), limit)
    decoder.feed(request.content.read())
    return decoder.finish()


def _call_head(request: Any, arguments: dict[str, str]) -> CallHead:
    return CallHead(
        method=request.method.decode("latin-1"),
        path=request.path.decode("latin-1"),
        arguments=arguments,
        query=request.uri.partition(b"?")[2].decode("latin-1"),
        headers=_headers(request),
    )


def _write(reply: Reply, request: Any) -> bytes:
    request.setResponseCode(reply.status)
    request.setHeader(b"Content-Type", reply.content_type)
    request.setHeader(b"Content-Length", b"%d" % len(reply.body))
    for name, value in reply.headers:
        request.setHeader(name, value)
    return bytes(reply.body)


def _headers(request: Any) -> dict[bytes, bytes]:
    return {
        name.lower(): b", ".join(values)
        for name, values in request.requestHeaders.getAllRawHeaders()
    }


def _peer(request: Any) -> str:
    address = request.getClientAddress()
    return f"{address.host}:{address.port}" if hasattr(address, "port") else "unix"


def _routing_error(request: Any, failure: Failure) -> BatcherError:
    method, path = request.method.decode("latin-1"), request.path.decode("latin-1")
    error = failure.value
    if isinstance(error, MethodNotAllowed):
        allowed = tuple(sorted(error.valid_methods or ()))
        return MethodUnknown(
            f"{path}: expected method {' or '.join(allowed)}; got {method}", allowed
        )
    if isinstance(error, HTTPException) and error.code == 404:
        return UnknownRoute(f"expected a route of this server, see /docs; got {path!r:.200}")
    return MalformedHttp(f"expected a path that can be routed; got {path!r:.200}: {error}")
