"""The order of answers on one connection: which requests are worked on, and whose turn it is.

A client may send several requests without waiting. They are worked on together, up to a bound, and
an answer whose turn has not come is held back:

    read ─► waiting ─► exchanges (`limits.pipelined` at most) ─► answers, in order

Nothing that was read begins while the bound is reached, or while the client does not read its
answers. `Pipeline` is the part of a connection that knows this order; the connection itself knows
its transport and its reader.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque

from mypy_extensions import mypyc_attr

from batcher.codecs.body_sink import BodySink
from batcher.codecs.content import Buffer
from batcher.frontends.web.exchange import Exchange
from batcher.frontends.web.http11.messages import Continue, Event, Refusal, Request, size_of
from batcher.frontends.web.http11.reader import Phase, RequestReader
from batcher.frontends.web.http11.rendering import CONTINUE
from batcher.frontends.web.outgoing import Outgoing
from batcher.frontends.web.shared import Shared
from batcher.frontends.web.turns import AnswerTurn, TurnOrder


@mypyc_attr(allow_interpreted_subclasses=True)
class Pipeline(TurnOrder):
    """The requests of one connection from their reading to their answers. Reactor thread."""

    def __init__(self, front: Shared) -> None:
        """Begin without requests."""
        self.peer = ""
        self._front = front
        self._max_exchanges = front.limits.pipelined
        self._reader = RequestReader(front.limits, front.seconds, front.heads, self._sink_of)
        self._out: Outgoing
        self._exchanges: deque[Exchange] = deque()
        self._waiting: deque[Request | Refusal] = deque()
        self._waiting_bytes = 0  # bytes of the requests in `_waiting`
        self._idle_since = front.seconds()  # when the present wait for a request began
        self._has_sent_request = False  # whether the client has sent a request
        self._continue_due = False
        self._advancing = False
        self._ended = False  # whether the client has ended its sending side
        self._paused = False  # whether nothing is read from the client
        # Whether the next answer that has nothing behind it is the last on this connection.
        self._retiring = False
        self._deaf = False  # whether what was read so far is the last that is read

    @property
    def turn(self) -> Exchange | None:
        """The exchange whose answer is next."""
        return self._exchanges[0] if self._exchanges else None

    @property
    def may_produce(self) -> bool:
        """Whether the client reads what is written."""
        return not self._out.blocked

    def write(self, data: Buffer) -> None:
        """Send `data` of the exchange whose turn it is."""
        if isinstance(data, bytes):
            self._out.write(data)
        else:
            self._out.write_view(data)
        if self._out.blocked:
            self._count()

    def hold(self, exchange: AnswerTurn, data: Buffer) -> None:
        """Keep `data` until it is the turn of `exchange`."""
        exchange.held.append(data)
        self._out.early += len(data)
        self._count()

    def ends_with(self, exchange: AnswerTurn) -> bool:
        """Return whether the connection retires and nothing comes behind `exchange`."""
        if not self._retiring:
            return False
        # A request of which a part has come is answered, too, unless more and more come.
        return (
            self._exchanges[-1] is exchange
            and not self._waiting
            and (self._deaf or self._reader.phase not in (Phase.HEAD, Phase.BODY))
        )

    def answered(self, exchange: AnswerTurn, data: bytes) -> None:
        """Send `data`, the whole answer of `exchange`, in its turn."""
        exchange.done = True
        exchanges = self._exchanges
        if exchanges[0] is not exchange:
            self.hold(exchange, data)
            return
        self._out.write(data)
        if self._out.blocked:
            self._count()
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
            self._idle_since = self._front.seconds()

    def advance(self) -> None:
        """Send what is complete, start on what waits, close if nothing more can come."""
        if self._advancing:
            # An answer that was ready at once: the loop below, further up on the stack, sees it.
            return
        self._advancing = True
        try:
            while self._step():
                pass
        finally:
            self._advancing = False
        if not self._exchanges and not self._waiting and not self._out.closing:
            self._idle_since = self._front.seconds()
            if self._ended or self._deaf:
                self._finish(linger=self._deaf)
        self._balance()

    def _step(self) -> bool:
        """Take one step of `advance`; return whether there was one to take."""
        if self._exchanges and self._exchanges[0].done:
            finished = self._exchanges.popleft()
            if finished.closes:
                self._finish(self._deaf or isinstance(finished.request, Refusal))
            elif self._exchanges:
                self._send_held(self._exchanges[0])
            return True
        if not self._exchanges and not self._waiting and self._continue_due:
            self._continue_due = False
            self._out.write(CONTINUE)
        if self._waiting and not self._out.blocked and not self._is_full():
            event = self._waiting.popleft()
            self._waiting_bytes -= size_of(event)
            self._start(event)
            return True
        return False

    def _is_full(self) -> bool:
        """Return whether as many requests are worked on as may be at a time."""
        return len(self._exchanges) >= self._max_exchanges

    def _take(self, event: Event) -> None:
        """Begin with a request that was read, or have it wait."""
        if type(event) is Continue:
            # The client waits for it, but not before the answers that are due, nor once its body
            # is here.
            self._continue_due = True
            if not self._exchanges:
                self._step()
            return
        self._continue_due = False
        self._has_sent_request = True
        if self._out.blocked or self._waiting or self._is_full():
            self._waiting.append(event)
            self._waiting_bytes += size_of(event)
        else:
            self._start(event)

    def _sink_of(self, path: str, headers: dict[bytes, bytes]) -> BodySink | None:
        """Return what takes the body of a POST on `path`; None if it is kept.

        Raises BatcherError: no such body is wanted.
        """
        sink = self._front.router.sink_of(path, headers)
        if sink is not None:
            sink.room = self._balance
        return sink

    def _start(self, event: Request | Refusal) -> None:
        exchange = Exchange(self, event)
        self._exchanges.append(exchange)
        exchange.begin(self._front)

    def _send_held(self, exchange: Exchange) -> None:
        if exchange.held:
            pieces, exchange.held = exchange.held, []
            for data in pieces:
                self._out.early -= len(data)
                self.write(data)
        self._pace()

    def _pace(self) -> None:
        """Have the answer whose turn it is produced as fast as the client reads."""
        if self._exchanges and self._exchanges[0].channel is not None:
            self._exchanges[0].channel.pace(self.may_produce)

    def _drop_requests(self) -> None:
        """Give up every request: nobody will read its answer."""
        self._drop_waiting()
        while self._exchanges:
            self._exchanges.popleft().give_up()

    def _drop_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0

    @abstractmethod
    def _finish(self, linger: bool) -> None:
        """Close behind what is written; with `linger` the client may go on sending for a while."""

    @abstractmethod
    def _balance(self) -> None:
        """Read while there is room for requests and the client reads its answers."""

    @abstractmethod
    def _count(self) -> None:
        """Note how many bytes the connection holds for its client."""
