"""Turns in the order of answers: what an exchange and its connection know of each other.

Answers leave in the order of their requests. An exchange asks its connection whether it is the turn
of the exchange; the channel of a Klein page asks its exchange. Both questions go through base
classes, not protocols: mypyc calls a method of a base class directly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from mypy_extensions import mypyc_attr

from batcher.codecs.content import Buffer
from batcher.frontends.endpoints.call import Call
from batcher.frontends.web.http11.messages import Refusal, Request
from batcher.frontends.web.shared import TrackedConnection


class AnswerTurn(Call, ABC):
    """One request's place in the order of answers. Reactor thread.

    The turn is the endpoint's call as well: that is one object less for each request.

    Attributes:
        request: what is to be answered.
        held: pieces of the answer that wait for the turn.
        done: whether the answer is complete.
        closes: whether the connection ends with this answer, which then says so.
    """

    __slots__ = ("closes", "done", "held", "request")

    def __init__(self, request: Request | Refusal, peer: str) -> None:
        """Begin without an answer."""
        self.request = request
        self.began = request.began
        self.peer = peer
        self.held: list[Buffer] = []
        self.done = False
        self.closes = False

    @abstractmethod
    def connection_header(self) -> bytes:
        """Return the answer's `Connection` header.

        The connection is closed behind an answer that says so.
        """

    @abstractmethod
    def write(self, data: Buffer) -> None:
        """Send `data` if it is this turn, else hold `data` back."""

    @abstractmethod
    def finish(self) -> None:
        """Note that the answer is complete."""


@mypyc_attr(allow_interpreted_subclasses=True)
class TurnOrder(TrackedConnection):
    """A connection, as its exchanges see it. Reactor thread.

    Attributes:
        peer: the client's address, for the log.
    """

    peer: str

    @property
    @abstractmethod
    def turn(self) -> AnswerTurn | None:
        """The exchange whose answer is next."""

    @property
    @abstractmethod
    def may_produce(self) -> bool:
        """Whether the client reads what is written."""

    @abstractmethod
    def info(self, name: str) -> Any:
        """Return what the transport knows about itself under `name`."""

    @abstractmethod
    def write(self, data: Buffer) -> None:
        """Send `data` of the exchange whose turn it is."""

    @abstractmethod
    def hold(self, exchange: AnswerTurn, data: Buffer) -> None:
        """Keep `data` until it is the turn of `exchange`."""

    @abstractmethod
    def ends_with(self, exchange: AnswerTurn) -> bool:
        """Return whether the connection retires and nothing comes behind `exchange`."""

    @abstractmethod
    def answered(self, exchange: AnswerTurn, data: bytes) -> None:
        """Send `data`, the whole answer of `exchange`, in its turn."""

    @abstractmethod
    def advance(self) -> None:
        """Send what is complete, start on what waits, close if nothing more can come."""
