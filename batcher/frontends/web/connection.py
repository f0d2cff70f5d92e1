"""One HTTP/1.1 connection: requests in, answers out in their order, however the requests end.

A connection is written against a few methods of a transport (`write`, `close`, `abort`,
`pause_reading`, `resume_reading`). Their names are asyncio's, so a connection runs as an asyncio
protocol on a uvloop transport as it stands, and through `listening/twisted_transport.py` as a
Twisted protocol on any reactor.

Inference routes go straight to their endpoint; every other request becomes a twisted.web request
that Klein answers. The order of answers stands in `pipeline.py`. While a client pipelines faster
than it is served, or does not read its answers, nothing more is read from that client.

A client that closes its connection and a client that only ends its sending side look the same: end
of file. The second client still waits for its answer. So the first nine bytes, which every answer
begins with, are sent at once. A client that is gone answers these bytes with a reset, and its
requests are cancelled before they cost anything. A client that waits has lost nothing.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import Any, Final

from mypy_extensions import mypyc_attr

from batcher.errors import BatcherError, Unavailable
from batcher.frontends.web.http11.messages import Refusal
from batcher.frontends.web.http11.reader import Phase, RequestReader
from batcher.frontends.web.outgoing import Outgoing
from batcher.frontends.web.pipeline import Pipeline
from batcher.frontends.web.shared import Shared
from batcher.frontends.web.transport import Transport, has_failed, peer_of

LAST_REQUESTS_S = 5.0
"""Seconds for which a connection that retires reads on while its client pipelines.

Then what was read is answered, and the connection closes: a client that pipelines without a pause
would keep a server that stops until `drain_timeout_s`.
"""


LARGE_PIECE_BYTES: Final = 1 << 14
"""Bytes of a piece of a body from which the piece counts against the time of the loop's turn.

libuv reads a connection up to 32 times a turn, 250 KiB each time: 8 MiB. Eight clients that send
as fast as they can would keep one turn for a tenth of a second.
"""


@mypyc_attr(allow_interpreted_subclasses=True)
class Connection(Pipeline):
    """See the module. All methods: reactor thread."""

    def __init__(self, front: Shared) -> None:
        """Serve one client of `front`."""
        super().__init__(front)
        self._transport: Transport
        self._paused_at = 0.0  # when reading was paused, in seconds
        self._made_at = front.seconds()
        self._retires_at = front.retires_at(self._made_at)  # inf where no age is set
        self._held_bytes = 0  # bytes that the front's buffers count for this connection
        self._reads_until = inf  # when it stops to read, since it retires
        if front.stopping:
            self.retire()

    def connection_made(self, transport: Transport) -> None:
        """Begin; refuse at once if there are too many."""
        self._transport = transport
        self._out = Outgoing(self._front, transport)
        self.peer = peer_of(transport)
        if not self._front.opened(self):
            error = Unavailable(
                f"expected at most {self._front.limits.connections} connections; this is one more"
            )
            self._take(Refusal(error, {}, self._idle_since))

    def data_received(self, data: bytes) -> None:
        """Read `data`, and start on the requests that are complete."""
        if self._deaf or self._out.lingering or self._out.closing:
            return  # under TLS the transport goes on reading
        reader = self._reader
        if reader.rest:
            reader.rest += data  # under TLS, what comes while reading is paused
        elif len(data) >= LARGE_PIECE_BYTES and reader.phase is Phase.BODY:
            reader.rest = data
            self._front.turns.run(self, partial(_read_on, self))
            if reader.rest:
                _hold(self)
                self._balance()
        else:
            _read(self, data)

    def eof_received(self) -> bool:
        """Return whether to keep the connection open, for answers that are still due."""
        while self._reader.rest:
            _read_on(self)
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
        """Give up everything that is still worked on."""
        self._out.drop()
        self._reader.close()
        self._front.lost(self)
        self._drop_requests()

    def pause_writing(self) -> None:
        """Neither read nor produce more: the client does not read its answers."""
        self._out.block(True)
        self._pace()
        # No advance here: a write may have called this, and its answer still has its place.
        self._balance()

    def resume_writing(self) -> None:
        """Go on: the client reads again."""
        self._out.block(False)
        self._pace()
        self.advance()

    def info(self, name: str) -> Any:
        """Return what the transport knows about itself under `name`."""
        return self._transport.get_extra_info(name)

    # What the front's sweep calls.

    def check(self, now: float, stood_still: float) -> None:
        """Close, refuse or cut off a client that takes too long."""
        self._reader.since += stood_still
        self._idle_since += stood_still
        self._out.since += stood_still
        self.recount(now)
        self._reads_until += stood_still
        if now >= self._retires_at:
            self.retire()
        if now >= self._reads_until and self._exchanges:
            self._deaf = True
            self._balance()
        if self._out.is_waiting:
            if self._out.is_overdue(now):
                self.abort()
        elif self._reader.phase in (Phase.HEAD, Phase.BODY):
            if not self._paused and (error := self._reader.timed_out(now)) is not None:
                self._refuse(error)
        elif not self._exchanges and self._front.is_idle_too_long(
            max(self._idle_since, self._out.since), self._has_sent_request, now
        ):
            self._finish(linger=False)

    def renew(self) -> None:
        """Hold the client to the limits that the front has now, and find routes anew."""
        self._max_exchanges = self._front.limits.pipelined
        self._reader.renew(self._front.limits)
        self._retires_at = self._front.retires_at(self._made_at)
        self._retiring, self._reads_until = False, inf
        if self._front.stopping:
            self.retire()

    def retire(self) -> None:
        """Have the next answer that has nothing behind it be the last, and say so.

        From LAST_REQUESTS_S on, nothing more is read while requests are answered.
        """
        if not self._retiring:
            self._retiring = True
            self._reads_until = self._front.seconds() + LAST_REQUESTS_S

    def probe(self) -> None:
        """See whether a client that ended its sending side is gone altogether."""
        if has_failed(self._transport):
            self.abort()

    def recount(self, now: float) -> None:
        """Count anew the bytes that the client has not read."""
        self._out.look(now)
        self._count()

    def give_way(self) -> None:
        """Refuse the body that is coming, or cut off a client that does not read.

        Others need the memory.
        """
        if self._held_bytes == self._reader.held:
            self._refuse(self._front.buffers.error())
        else:
            self._drop_waiting()
            self._reader.close()
            self.abort()
            self._count()

    def abort(self) -> None:
        """Cut the client off."""
        self._out.abort()

    def close(self) -> None:
        """End the connection with what is written already."""
        self._finish(linger=False)

    def _finish(self, linger: bool) -> None:
        self._drop_requests()
        self._out.early = 0
        self._out.end(linger and not self._ended)
        self._balance()

    def _refuse(self, error: BatcherError) -> None:
        self._take(self._reader.refuse(error))
        self._count()

    def _count(self) -> None:
        held = self._reader.held + self._waiting_bytes + self._out.early + self._out.unsent
        if held != self._held_bytes:
            self._held_bytes = held
            self._front.buffers.hold(self, held)

    def _balance(self) -> None:
        """Read while there is room for requests and the client reads its answers."""
        self._count()
        pause = not self._out.lingering and (
            self._deaf
            or self._out.blocked
            or len(self._waiting) > 0
            or len(self._reader.rest) > 0
            or _is_behind(self._reader)
            or self._is_full()
        )
        if pause is self._paused or self._out.closing or self._ended:
            return
        self._paused = pause
        if pause:
            self._paused_at = self._front.seconds()
            self._transport.pause_reading()
        else:
            # Nothing could arrive while reading was paused: the client's time did not pass.
            self._reader.since += self._front.seconds() - self._paused_at
            self._transport.resume_reading()


def _read(connection: Connection, data: bytes) -> None:
    """Read `data` of `connection`, and start on the requests that are complete."""
    reader, front = connection._reader, connection._front
    for event in reader.feed(data):
        connection._take(event)
    if reader.rest:
        front.turns.later(connection, partial(_read_on, connection))
    if reader.held or connection._held_bytes:
        _hold(connection)
    if connection._paused or reader.rest or connection._is_full():
        connection._balance()


def _hold(connection: Connection) -> None:
    """Count the body that arrives on `connection`, or refuse the body where that is too much."""
    connection._count()
    if connection._reader.held and connection._front.buffers.is_over:
        connection._refuse(connection._front.buffers.error())
    elif _is_behind(connection._reader):
        connection._balance()


def _is_behind(reader: RequestReader) -> bool:
    """Return whether the present body is taken more slowly than it arrives."""
    return reader.sink is not None and reader.sink.is_behind


def _read_on(connection: Connection) -> None:
    """Read the next part of what has arrived on `connection`."""
    rest, connection._reader.rest = connection._reader.rest, b""
    if not rest:
        return
    out = connection._out
    if not (connection._deaf or out.lingering or out.closing):
        _read(connection, rest)
    connection._balance()
