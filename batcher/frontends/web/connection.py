"""One HTTP/1.1 connection: requests in, answers out in their order, however the requests end.

It is written against five methods of a transport (`write`, `close`, `abort`, `pause_reading`,
`resume_reading`), the names of asyncio's, so it runs as an asyncio protocol on a uvloop transport
as it stands, and through `web/twisted_transport.py` as a Twisted protocol on any reactor.

Inference routes go straight to their endpoint; every other request becomes a twisted.web request
answered by Klein. Pipelined requests are worked on together, up to a bound; an answer whose turn
has not come is held back. While a client pipelines faster than it is served, or does not read its
answers, nothing more is read from it, and nothing that was read is begun.

A client that closes its connection and one that only ends its sending side look the same: end of
file. The second still waits for its answer. So the first nine bytes, which every answer begins
with, are sent at once: a client that is gone answers with a reset, its requests are cancelled
before they cost anything, and a client that waits has lost nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from mypy_extensions import mypyc_attr

from batcher.errors import BatcherError, Unavailable
from batcher.frontends.web.exchange import Exchange
from batcher.frontends.web.http11.messages import Continue, Event, Refusal, Request, size_of
from batcher.frontends.web.http11.reader import Phase, RequestReader
from batcher.frontends.web.http11.rendering import CONTINUE
from batcher.frontends.web.outgoing import Outgoing
from batcher.frontends.web.transport import Transport, has_failed, peer_of

if TYPE_CHECKING:
    from batcher.frontends.web.front import Front


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
        self._since = front.seconds()  # when the present wait for a request began
        self._served = self._continue_due = self._advancing = False
        self._ended = self._paused = False
        self._paused_at = 0.0
        self._unbegun = self._held = (
            0  # bytes of requests that wait, and of everything that is counted
        )
        self.peer = ""

    def connection_made(self, transport: Transport) -> None:
        """Begin; refuse at once if there are too many."""
        self._transport = transport
        self._out = Outgoing(self._front, transport)
        self.peer = peer_of(transport)
        if not self._front.opened(self):
            error = Unavailable(
                f"expected at most {self._front.limits.connections} connections; this is one more"
            )
            self._take(Refusal(error, {}, self._since))

    def data_received(self, data: bytes) -> None:
        """Read what came, and start on the requests that it completes."""
        if self._out.lingering or self._out.closing:  # under TLS it is still read then
            return
        for event in self._reader.feed(data):
            self._take(event)
        if self._reader.held or self._held:
            self._count()
            if self._reader.held and self._front.buffers.is_over:
                self._refuse(self._front.buffers.error())
        if self._paused or len(self._exchanges) >= self._most:
            self._balance()

    def eof_received(self) -> bool:
        """Return whether to keep the connection open, for answers that are still due."""
        self._ended = True
        if (
            not (self._exchanges or self._waiting)
            or self._out.lingering
            or self.info("sslcontext") is not None
        ):
            return False
        if self._exchanges and not self._exchanges[0].held and not self._exchanges[0].started:
            self._out.send_prefix()
        self._front.watch(self)
        return True

    def connection_lost(self, reason: object) -> None:
        """Cancel everything that was still worked on."""
        self._out.drop()
        self._reader.close()
        self._front.lost(self)
        self._waiting.clear()
        while self._exchanges:
            self._exchanges.popleft().give_up()

    def pause_writing(self) -> None:
        """The client does not read its answers: neither read nor produce more."""
        self._out.block(True)
        self._pace()
        # and no more: this may come out of a write, whose answer has not left its place yet
        self._balance()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._out.block(False)
        self._pace()
        self.advance()

    # What exchanges call.

    @property
    def turn(self) -> Exchange | None:
        """The exchange whose answer is next."""
        return self._exchanges[0] if self._exchanges else None

    @property
    def may_produce(self) -> bool:
        """Whether the client reads what is written."""
        return not self._out.blocked

    def info(self, name: str) -> Any:
        """Return what the transport knows about itself under `name`."""
        return self._transport.get_extra_info(name)

    def write(self, data: bytes) -> None:
        """Send `data` of the exchange whose turn it is."""
        self._out.write(data)
        if self._out.blocked:
            self._count()

    def hold(self, exchange: Exchange, data: bytes) -> None:
        """Keep `data` until it is the turn of `exchange`."""
        exchange.held.append(data)
        self._out.early += len(data)
        self._count()

    def ends_with(self, exchange: Exchange) -> bool:
        """Return whether the server is being stopped and nothing comes behind `exchange`."""
        if not self._front.stopping:
            return False
        return (
            self._exchanges[-1] is exchange
            and not self._waiting
            and self._reader.phase is not Phase.BODY
        )

    def answered(self, exchange: Exchange, data: bytes) -> None:
        """Send `data`, the whole answer of `exchange`, in its turn."""
        exchange.done = True
        exchanges = self._exchanges
        if exchanges[0] is not exchange:
            self.hold(exchange, data)
            return
        self.write(data)
        if (
            len(exchanges) > 1
            or exchange.closes
            or self._paused
            or self._ended
            or self._continue_due
            or self._advancing
        ):
            self.advance()
        else:  # as nearly always: nothing else is to be done
            exchanges.popleft()
            self._since = self._front.seconds()

    def advance(self) -> None:
        """Send what is complete, start on what waits, close if nothing more can come."""
        if self._advancing:
            # an answer that was ready at once: the loop below, further up on the stack, sees it
            return
        self._advancing = True
        try:
            while self._step():
                pass
        finally:
            self._advancing = False
        if not self._exchanges and not self._waiting and not self._out.closing:
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
        if self._waiting and not self._out.blocked and len(self._exchanges) < self._most:
            event = self._waiting.popleft()
            self._unbegun -= size_of(event)
            self._start(event)
            return True
        return False

    # What the front's sweep calls.

    def check(self, now: float) -> None:
        """Close, refuse or cut off a client that takes too long."""
        self.recount(now)
        if self._out.is_waiting:
            if self._out.is_overdue(now):
                self.abort()
        elif self._reader.phase in (Phase.HEAD, Phase.BODY):
            if not self._paused and (error := self._reader.timed_out(now)) is not None:
                self._refuse(error)
        elif not self._exchanges and self._front.is_idle_too_long(
            max(self._since, self._out.since), self._served, now
        ):
            self._finish(linger=False)

    def renew(self) -> None:
        """Hold the client to the limits that the front has now, and find routes anew."""
        self._most = self._front.limits.pipelined
        self._reader.renew(self._front.limits)

    def probe(self) -> None:
        """See whether a client that ended its sending side is gone altogether."""
        if has_failed(self._transport):
            self.abort()

    def recount(self, now: float) -> None:
        """Count anew what the client has not read."""
        self._out.look(now)
        self._count()

    def give_way(self) -> None:
        """Refuse the body that is coming, or cut off a client that does not read.

        Others need the memory.
        """
        if self._held == self._reader.held:
            self._refuse(self._front.buffers.error())
        else:
            self._waiting.clear()
            self._unbegun = 0
            self._reader.close()
            self.abort()
            self._count()

    def abort(self) -> None:
        """Cut the client off."""
        self._out.abort()

    def close(self) -> None:
        """End the connection with what is written already."""
        self._finish(linger=False)

    def _take(self, event: Event) -> None:
        if type(event) is Continue:
            self._continue_due = (
                True  # not before the answers that are due, nor once the body is here
            )
            if not self._exchanges:
                self._step()
            return
        self._continue_due = False
        self._served = True
        if self._out.blocked or self._waiting or len(self._exchanges) >= self._most:
            self._waiting.append(event)
            self._unbegun += size_of(event)
        else:
            self._start(event)

    def _start(self, event: Request | Refusal) -> None:
        exchange = Exchange(self, event)
        self._exchanges.append(exchange)
        exchange.begin(self._front)

    def _flush(self, exchange: Exchange) -> None:
        if exchange.held:
            data = b"".join(exchange.held)
            exchange.held = []
            self._out.early -= len(data)
            self.write(data)
        self._pace()

    def _pace(self) -> None:
        if self._exchanges and self._exchanges[0].channel is not None:
            self._exchanges[0].channel.pace(self.may_produce)

    def _finish(self, linger: bool) -> None:
        while self._exchanges:
            self._exchanges.popleft().give_up()
        self._waiting.clear()
        self._out.early = self._unbegun = 0
        self._out.end(linger and not self._ended)
        self._balance()

    def _refuse(self, error: BatcherError) -> None:
        self._take(self._reader.refuse(error))
        self._count()

    def _count(self) -> None:
        held = self._reader.held + self._unbegun + self._out.early + self._out.unsent
        if held != self._held:
            self._held = held
            self._front.buffers.hold(self, held)

    def _balance(self) -> None:
        """Read while there is room for requests and the client reads its answers."""
        self._count()
        pause = not self._out.lingering and (
            self._out.blocked or len(self._waiting) > 0 or len(self._exchanges) >= self._most
        )
        if pause is not self._paused and not self._out.closing and not self._ended:
            self._paused = pause
            if pause:
                self._paused_at = self._front.seconds()
                self._transport.pause_reading()
            else:
                self._reader.since += (
                    self._front.seconds() - self._paused_at
                )  # it could not have come in that time
                self._transport.resume_reading()
