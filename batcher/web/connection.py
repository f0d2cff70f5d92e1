"""One HTTP/1.1 connection: requests in, answers out in their order, however the requests end.

It is written against five methods of a transport (`write`, `close`, `abort`, `pause_reading`, `resume_reading`), the names of
asyncio's, so it runs as an asyncio protocol on a uvloop transport as it stands, and through `web/twisted_transport.py` as a
Twisted protocol on any reactor.

Inference routes go straight to their endpoint; every other request becomes a twisted.web request answered by Klein. Pipelined
requests are worked on together, up to a bound; an answer whose turn has not come is held back. While a client pipelines
faster than it is served, or does not read its answers, nothing more is read from it, and nothing that was read is begun.

A client that closes its connection and one that only ends its sending side look the same: end of file. The second still
waits for its answer. So the first nine bytes, which every answer begins with, are sent at once: a client that is gone
answers with a reset, its requests are cancelled before they cost anything, and a client that waits has lost nothing.
"""

from __future__ import annotations

from collections import deque
from socket import SO_ERROR, SOL_SOCKET
from typing import TYPE_CHECKING, Any

from mypy_extensions import mypyc_attr

from batcher.errors import Unavailable
from batcher.web.exchange import Exchange
from batcher.web.messages import Continue, Event, Refusal, Request
from batcher.web.outgoing import Outgoing
from batcher.web.reader import Phase, RequestReader
from batcher.web.rendering import CONTINUE
from batcher.web.transport import Transport

if TYPE_CHECKING:
    from batcher.web.front import Front

LINGER = 2.0
"""Seconds that a refused client may go on sending into the void, so that it reads the answer before a reset."""

DRAIN_GRACE = 0.25
"""Seconds that a kept connection without a request stays open when the server is stopped: a request may be on its way."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Connection:
    """See the module. All methods: reactor thread."""

    def __init__(self, front: Front) -> None:
        """Serve one client of `front`."""
        self._front = front
        self._most = front.limits.pipelined
        self._reader = RequestReader(front.limits, front.seconds, front.is_stopping, front.heads)
        self._exchanges: deque[Exchange] = deque()
        self._waiting: deque[Request | Refusal] = deque()
        self._transport: Transport
        self._out: Outgoing
        self._since = front.seconds()  # when the present wait (for a request, for the client to read or go) began
        self._served = False
        self._continue_due = False
        self._advancing = False
        self._ended = False
        self._paused = self._blocked = False
        self._paused_at = 0.0
        self._closing = self._lingering = False
        self._unsent = 0
        self.peer = ""

    def connection_made(self, transport: Transport) -> None:
        """Begin; refuse at once if there are too many."""
        self._transport = transport
        self._out = Outgoing(self._front, transport)
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) and len(peer) > 1 else str(peer or "unix")
        if not self._front.opened(self):
            error = Unavailable(f"expected at most {self._front.limits.connections} connections; this is one more")
            self._take(Refusal(error, {}, self._since))

    def data_received(self, data: bytes) -> None:
        """Read what came, and start on the requests that it completes."""
        if self._lingering:
            return
        for event in self._reader.feed(data):
            self._take(event)
        if self._paused or len(self._exchanges) >= self._most:
            self._balance()

    def eof_received(self) -> bool:
        """Return whether to keep the connection open, for answers that are still due."""
        self._ended = True
        if not (self._exchanges or self._waiting) or self._lingering or self.info("sslcontext") is not None:
            return False
        if self._exchanges and not self._exchanges[0].held and not self._exchanges[0].started:
            self._out.send_prefix()
        self._front.watch(self)
        return True

    def connection_lost(self, reason: object) -> None:
        """Cancel everything that was still worked on."""
        self._closing = True
        self._out.drop()
        self._reader.close()
        self._front.lost(self)
        self._waiting.clear()
        while self._exchanges:
            self._exchanges.popleft().give_up()

    def pause_writing(self) -> None:
        """The client does not read its answers: neither read nor produce more."""
        self._block(True)

    def resume_writing(self) -> None:
        """The client reads again."""
        self._block(False)

    # What exchanges call.

    @property
    def turn(self) -> Exchange | None:
        """The exchange whose answer is next."""
        return self._exchanges[0] if self._exchanges else None

    @property
    def may_produce(self) -> bool:
        """Whether the client reads what is written."""
        return not self._blocked

    def info(self, name: str) -> Any:
        """Return what the transport knows about itself under `name`."""
        return self._transport.get_extra_info(name)

    def write(self, data: bytes) -> None:
        """Send `data` of the exchange whose turn it is."""
        if not self._closing:
            self._out.write(data)

    def connection_header(self, exchange: Exchange) -> bytes:
        """Return the `Connection` header for the answer of `exchange`, which closes the connection if it says so."""
        request = exchange.request
        if (
            exchange.closes
            or type(request) is Refusal
            or not request.head.keep_alive
            or (self._front.stopping and self._is_last(exchange))
        ):
            exchange.closes = True
            return b"close"
        return b"keep-alive" if request.head.old else b""

    def answered(self, exchange: Exchange, data: bytes) -> None:
        """Send `data`, the whole answer of `exchange`, in its turn."""
        exchange.done = True
        exchanges = self._exchanges
        if exchanges[0] is not exchange:
            exchange.held.append(data)
            return
        self.write(data)
        if len(exchanges) > 1 or exchange.closes or self._paused or self._ended or self._continue_due or self._advancing:
            self.advance()
        else:  # as nearly always: nothing else is to be done
            exchanges.popleft()
            self._since = self._front.seconds()

    def advance(self) -> None:
        """Send what is complete, start on what waits, close if nothing more can come."""
        if self._advancing:
            return  # an answer that was ready at once: the loop below, further up on the stack, sees it
        self._advancing = True
        try:
            while self._step():
                pass
        finally:
            self._advancing = False
        if not self._exchanges and not self._waiting and not self._closing:
            self._since = self._front.seconds()
            if self._ended:
                self._finish(linger=False)
        self._balance()

    def _step(self) -> bool:
        """Take one step of `advance`; return whether there was one to take."""
        if self._exchanges and self._exchanges[0].done:
            finished = self._exchanges.popleft()
            if finished.closes:
                self._finish(isinstance(finished.request, Refusal))
            elif self._exchanges:
                self._flush(self._exchanges[0])
            return True
        if not self._exchanges and not self._waiting and self._continue_due:
            self._continue_due = False
            self._out.write(CONTINUE)
        if self._waiting and not self._blocked and len(self._exchanges) < self._most:
            self._start(self._waiting.popleft())
            return True
        return False

    # What the front's sweep calls.

    def check(self, now: float) -> None:
        """Close, refuse or cut off a client that takes too long."""
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._since = unsent, now  # it reads, however slowly
        waited = now - self._since
        if self._closing or self._blocked or (self._lingering and unsent):
            if waited > self._front.limits.write_timeout:
                self._transport.abort()
        elif self._lingering:
            if waited > LINGER:
                self._transport.abort()
        elif self._reader.phase in (Phase.HEAD, Phase.BODY):
            if not self._paused and (refusal := self._reader.timed_out(now)) is not None:
                self._take(refusal)
        elif not self._exchanges and self._is_idle_too_long(now):
            self._finish(linger=False)

    def renew(self) -> None:
        """Hold the client to the limits that the front has now, and find routes anew."""
        self._most = self._front.limits.pipelined
        self._reader.renew(self._front.limits)

    def probe(self) -> None:
        """See whether a client that ended its sending side is gone altogether."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.getsockopt(SOL_SOCKET, SO_ERROR):
            self._transport.abort()

    def abort(self) -> None:
        """Cut the client off."""
        self._out.abort()

    def close(self) -> None:
        """End the connection with what is written already."""
        self._finish(linger=False)

    def _is_idle_too_long(self, now: float) -> bool:
        if self._front.stopping:
            return now - max(self._since, self._front.stopping_since) > DRAIN_GRACE
        return now - self._since > (self._front.limits.idle_timeout if self._served else self._front.limits.header_timeout)

    def _take(self, event: Event) -> None:
        if type(event) is Continue:
            self._continue_due = True  # not before the answers that are due, nor once the body is here
            if not self._exchanges:
                self._step()
            return
        self._continue_due = False
        self._served = True
        if self._blocked or self._waiting or len(self._exchanges) >= self._most:
            self._waiting.append(event)
        else:
            self._start(event)

    def _start(self, event: Request | Refusal) -> None:
        exchange = Exchange(self, event)
        self._exchanges.append(exchange)
        exchange.begin(self._front)

    def _flush(self, exchange: Exchange) -> None:
        if exchange.held:
            self.write(b"".join(exchange.held))
            exchange.held = []
        if exchange.channel is not None:
            exchange.channel.pace(self.may_produce)

    def _block(self, blocked: bool) -> None:
        self._blocked = blocked
        self._since = self._front.seconds()
        if self._exchanges and self._exchanges[0].channel is not None:
            self._exchanges[0].channel.pace(self.may_produce)
        if blocked:
            self._balance()  # and no more: this may come out of a write, whose answer has not left its place yet
        else:
            self.advance()

    def _is_last(self, exchange: Exchange) -> bool:
        return self._exchanges[-1] is exchange and not self._waiting and self._reader.phase is not Phase.BODY

    def _finish(self, linger: bool) -> None:
        self._since = self._front.seconds()
        while self._exchanges:
            self._exchanges.popleft().give_up()
        self._waiting.clear()
        self._out.flush()
        if linger and not self._ended and self._transport.can_write_eof():
            self._lingering = True
            self._transport.write_eof()
            self._balance()
        else:
            self._closing = True
            self._transport.close()

    def _balance(self) -> None:
        """Read while there is room for requests and the client reads its answers."""
        pause = not self._lingering and (self._blocked or len(self._waiting) > 0 or len(self._exchanges) >= self._most)
        if pause is not self._paused and not self._closing and not self._ended:
            self._paused = pause
            if pause:
                self._paused_at = self._front.seconds()
                self._transport.pause_reading()
            else:
                self._reader.since += self._front.seconds() - self._paused_at  # it could not have come in that time
                self._transport.resume_reading()
