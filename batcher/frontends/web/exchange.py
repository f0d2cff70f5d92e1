"""One request on its connection, from its place in the order of answers to its end."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.codecs.content import Buffer
from batcher.frontends.endpoints.call import CallHead, Reply
from batcher.frontends.endpoints.failures import failure_reply_on
from batcher.frontends.endpoints.routing import Route, marked
from batcher.frontends.web.http11.messages import Refusal, Request, RequestHead
from batcher.frontends.web.http11.rendering import LARGE_BODY_BYTES, render, render_head
from batcher.frontends.web.klein_channel import KleinChannel
from batcher.frontends.web.shared import Shared
from batcher.frontends.web.turns import AnswerTurn, TurnOrder

_log = Logger()

KLEIN = object()
"""What is found out about a head that Klein is to answer."""


class MatchedRoute(NamedTuple):
    """What is found out about a head that an endpoint answers here."""

    route: Route
    head: CallHead


class Exchange(AnswerTurn):
    """One request and its place in the order of answers. Reactor thread.

    Attributes:
        deferred: the endpoint's work on the request; None before, and where Klein answers.
        channel: what Klein writes to; None where an endpoint answers.
    """

    __slots__ = ("_connection", "channel", "deferred")

    def __init__(self, connection: TurnOrder, request: Request | Refusal) -> None:
        """Take the last place in `connection`."""
        super().__init__(request, connection.peer)
        self._connection = connection
        self.deferred: Deferred[None] | None = None
        self.channel: KleinChannel | None = None

    @property
    def started(self) -> bool:
        """Whether Klein has sent the beginning of its answer."""
        return self.channel is not None and self.channel.started

    def begin(self, front: Shared) -> None:
        """Have the request answered by its endpoint, by Klein, or with an error."""
        request = self.request
        if type(request) is Refusal:
            self._refuse(front, request)
            return
        found = request.head.match or self._find(front, request.head)
        if type(found) is MatchedRoute:
            route, self.head = found
            self.body, request.body = request.body, b""
            self.size = len(self.body)
            self.deferred = front.router.answer(route, self, self.reply)
        else:
            front.turns.run(self._connection, partial(self._begin_page, front, request))

    def _begin_page(self, front: Shared, request: Request) -> None:
        """Have Klein answer `request`, unless the client left meanwhile."""
        if not self.done:
            self.channel = KleinChannel(self, self._connection, front.site)
            self.channel.handle(request)

    def _find(self, front: Shared, head: RequestHead) -> object:
        match = front.router.match(head.method, head.path)
        if match is None:
            head.match = KLEIN
        else:
            route, arguments = match
            marks = front.router.marks(head.headers)
            head.match = MatchedRoute(
                route, CallHead(head.method, head.path, arguments, head.query, head.headers, marks)
            )
        return head.match

    def _refuse(self, front: Shared, refusal: Refusal) -> None:
        path = refusal.target.partition(b"?")[0].decode("latin-1")
        marks = front.router.marks(refusal.headers)
        self.head = CallHead(refusal.method, path, {}, "", refusal.headers, marks)
        self.body, self.size = b"", 0
        front.router.answer_log.answered("", "", refusal.error.http_status, self.began, self)
        make_reply, disclosure = failure_reply_on(path), front.router.disclosure
        reply = marked(make_reply(refusal.error, refusal.headers, disclosure), marks)
        data = render(reply, self.connection_header())
        if refusal.method == "HEAD":
            data = data[: len(data) - len(reply.body)]
        self._connection.answered(self, data)

    def connection_header(self) -> bytes:
        """Return the answer's `Connection` header.

        The connection is closed behind the answer if it says so.
        """
        request = self.request
        if (
            self.closes
            or type(request) is Refusal
            or not request.head.keep_alive
            or self._connection.ends_with(self)
        ):
            self.closes = True
            return b"close"
        return b"keep-alive" if request.head.old else b""

    def write(self, data: Buffer) -> None:
        """Send `data` if it is this exchange's turn, else hold it back."""
        if self._connection.turn is self:
            self._connection.write(data)
        else:
            self._connection.hold(self, data)

    def finish(self) -> None:
        """Note that the answer is complete."""
        self.done = True
        self._connection.advance()

    def reply(self, reply: Reply) -> None:
        """Send a whole answer."""
        try:
            if isinstance(reply.body, bytes) or len(reply.body) < LARGE_BODY_BYTES:
                self._connection.answered(self, render(reply, self.connection_header()))
            else:
                self._reply_in_two(reply)
        except Exception:
            _log.failure("an answer could not be written")
            self._connection.abort()

    def _reply_in_two(self, reply: Reply) -> None:
        """Send an answer without a copy of its body, which nobody else may change."""
        self.write(render_head(reply, self.connection_header()))
        self.write(reply.body)
        self.finish()

    def give_up(self) -> None:
        """Cancel the work on the request: the client is gone."""
        self.done = True
        if self.deferred is not None:
            self.deferred.addErrback(lambda failure: failure.trap(CancelledError))
            self.deferred.cancel()
        if self.channel is not None:
            self.channel.connection_lost(Failure(ConnectionDone("the client left")))
