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
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.exceptions import MethodNotAllowed as MethodUnknown

from batcher.codecs.content_coding import Body, body_decoder
from batcher.core.error_text import brief
from batcher.errors import BatcherError, MalformedHttp, MethodNotAllowed, UnknownRoute
from batcher.frontends.endpoints.call import Call, CallHead, Reply
from batcher.frontends.endpoints.failures import failure_reply_on
from batcher.frontends.endpoints.other_routes import route_like
from batcher.frontends.endpoints.routing import Route, Router, captured, marked, segments_of
from batcher.frontends.web.file_sending import FileSending
from batcher.frontends.web.http11.rendering import NO_CONTENT, STANDARD_FIELDS

Written = bytes | Deferred[bytes]
"""The rest of an answer, and a Deferred of it where a file is sent before."""


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

    def unrouted(request: Any, failure: Failure) -> Written:
        return _answer_unrouted(router, request, _path_as_sent(request, 0), failure.value)

    app.handle_errors(HTTPException)(unrouted)
    return app


def _answer_unrouted(
    router: Router, request: Any, path: str, reason: BaseException | None
) -> Written:
    """Answer a request on `path` that no route takes: `OPTIONS`, or an error for `reason`."""
    head = _call_head(router, request, {})
    reply = router.options(path, head.headers) if head.method == "OPTIONS" else None
    if reply is None:
        error = _routing_error(head, router.methods_of(path), reason)
        reply = failure_reply_on(head.path)(error, head.headers, router.disclosure)
    began = router.answer_log.seconds()
    call = Call(head, b"", began, _peer(request))
    router.answer_log.answered("", "", reply.status, began, call)
    return _write(marked(reply, head.marks), request)


def klein_site(router: Router, max_body: int) -> Site:
    """Return a twisted.web site with every route; bodies have at most `max_body` bytes."""
    resource = klein_app(router, max_body).resource()
    make_site: Any = _StandardSite  # mypy-zope sees no types of a subclass's arguments
    site: Site = make_site(resource, parsePOSTFormSubmission=False)
    site.displayTracebacks = False
    return site


class _StandardSite(Site):
    """A site whose every answer has the standard fields, those of twisted.web's own too."""

    def getResourceFor(self, request: Any) -> Any:
        """Set the fields, and return what renders `request`."""
        for name, value in STANDARD_FIELDS:
            request.setHeader(name, value)
        return super().getResourceFor(request)  # type: ignore[no-untyped-call]  # Twisted's own


def _handler(router: Router, route: Route, max_body: int) -> Callable[..., Deferred[Any]]:
    pattern = route.pattern.split("/")
    own = len([segment for segment in pattern if segment])

    def handle(request: Any, **arguments: str) -> Deferred[Any]:
        # Klein decodes and shortens a path before it looks for the route.
        path = _path_as_sent(request, own)
        if captured(pattern, segments_of(path)) is None:
            return succeed(_answer_unrouted(router, request, path, None))
        head = _call_head(router, request, arguments)
        began = router.answer_log.seconds()
        try:
            call = Call(head, _body(request, head, max_body), began, _peer(request))
        except BatcherError as err:
            call = Call(head, b"", began, _peer(request))
            reply = marked(router.failure_reply(err, route, head), head.marks)
            router.answer_log.answered(route.pattern, reply.model, reply.status, began, call)
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


def _call_head(router: Router, request: Any, arguments: dict[str, str]) -> CallHead:
    headers = _headers(request)
    return CallHead(
        method=request.method.decode("latin-1"),
        path=request.path.decode("latin-1"),
        arguments=arguments,
        query=request.uri.partition(b"?")[2].decode("latin-1"),
        headers=headers,
        marks=router.marks(headers),
    )


def _path_as_sent(request: Any, own: int) -> str:
    """Return the path below the resource of this application, still percent-encoded.

    `own` is the number of segments that Klein took for the route.
    """
    path: str = request.path.decode("latin-1")
    above = max(len(request.prepath) - own, 0)
    return "/" + "/".join(path.split("/")[1 + above :])


def _write(reply: Reply, request: Any) -> Written:
    request.setResponseCode(reply.status)
    nbytes = len(reply.body) if reply.file is None else reply.file.nbytes
    if reply.status != NO_CONTENT:
        request.setHeader(b"Content-Type", reply.content_type)
        request.setHeader(b"Content-Length", b"%d" % nbytes)
    for name, value in reply.headers:
        request.responseHeaders.addRawHeader(name, value)
    if reply.file is not None and request.method != b"HEAD":
        return FileSending(reply.file, request).send()
    return bytes(reply.body)


def _headers(request: Any) -> dict[bytes, bytes]:
    return {
        name.lower(): b", ".join(values)
        for name, values in request.requestHeaders.getAllRawHeaders()
    }


def _peer(request: Any) -> str:
    address = request.getClientAddress()
    return f"{address.host}:{address.port}" if hasattr(address, "port") else "unix"


def _routing_error(
    head: CallHead, methods: tuple[str, ...], reason: BaseException | None
) -> BatcherError:
    """Return the error for a request that no route takes.

    `methods` are those of the routes on its path, `reason` is Klein's error, None if Klein took a
    route for a path that is another one.
    """
    if methods:
        expected = f"expected method {' or '.join(methods)}; got {head.method}"
        return MethodNotAllowed(f"{head.path:.200}: {expected}", methods)
    if reason is None or isinstance(reason, NotFound | MethodUnknown):
        meant = route_like(head.path)
        return UnknownRoute(
            f"expected a route of this server, see /docs; got {brief(head.path, 200)}"
            + (f". Did you mean {meant}?" if meant else "")
        )
    return MalformedHttp(
        f"expected a path that can be routed; got {brief(head.path, 200)}: {reason}"
    )
