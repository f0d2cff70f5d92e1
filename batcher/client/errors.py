"""How a call may end without its result, as one tree.

    ClientFailure
     +- NotConnected      no connection could be made; nothing was sent            (a ConnectionError)
     +- AnswerLost        the connection broke after the request may have left     (a ConnectionError)
     +- DeadlineExceeded  the caller's time is over                                (a TimeoutError)
     +- InferenceFailed   the server answered with an error; carries its status
     +- MalformedAnswer   the answer is not one of the Open Inference Protocol

A tree apart from `batcher.errors`: that one tells what happened inside the server, this one what
the caller can know of it. Arguments that cannot be sent are a plain `TypeError` or `ValueError`,
raised before anything is.
"""

from __future__ import annotations


class ClientFailure(Exception):
    """Root of the tree."""


class NotConnected(ClientFailure, ConnectionError):
    """No connection could be made, so the request did not run."""


class AnswerLost(ClientFailure, ConnectionError):
    """The connection ended before its answer was whole; the request may have run."""


class DeadlineExceeded(ClientFailure, TimeoutError):
    """The time that the caller gave is over; the request may have run."""


class InferenceFailed(ClientFailure):
    """The server answered with an error.

    Attributes:
        status: its HTTP status.
        message: what the server says of it.
        retry_after: seconds after which the server asks to be tried again, None if it does not. It
            asks only where the request did not run.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        """Keep what the answer said."""
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[InferenceFailed], tuple[int, str, float | None]]:
        """Let it be copied and pickled."""
        return InferenceFailed, (self.status, self.message, self.retry_after)


class MalformedAnswer(ClientFailure):
    """The server answered with success, and with something that cannot be read."""
