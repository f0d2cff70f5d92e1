"""How a call may end without a result, as one tree of exceptions.

    ClientFailure
     +- NotConnected      no connection could be made; nothing was sent        (a ConnectionError)
     +- AnswerLost        the connection broke after the request may have left (a ConnectionError)
     +- DeadlineExceeded  the caller's time is over                            (a TimeoutError)
     +- InferenceFailed   the server answered with an error status
     +- MalformedAnswer   the answer is not one of the Open Inference Protocol
     +- ClientClosed      the client was closed, before the call or during it  (a RuntimeError)

This tree is apart from `batcher.errors`: `batcher.errors` tells what happened inside the server,
this tree tells what the caller can know. Arguments that cannot be sent raise a plain `TypeError`
or `ValueError` before anything is sent.
"""

from __future__ import annotations

import re

from batcher.core.spec import DATATYPES
from batcher.errors import MODEL_FAILED

_OTHER_DTYPE = re.compile(r": expected datatype (\w+); got ")
"""The server's reason where an array has another dtype, as NumPy's float64 mostly is."""


_WHERE = (
    ". The text of the model's exception is in the server's log, under this request id; with the "
    "server's setting `expose_model_errors: true` it is in the answer"
)
"""What stands behind the server's reason where the server has withheld an exception."""


class ClientFailure(Exception):
    """Root of the tree."""


class NotConnected(ClientFailure, ConnectionError):
    """No connection could be made, so the request did not run."""


class AnswerLost(ClientFailure, ConnectionError):
    """The connection ended before the answer was whole; the request may have run."""


class DeadlineExceeded(ClientFailure, TimeoutError):
    """The caller's time is over; the request may have run."""


class InferenceFailed(ClientFailure):
    """The server answered with an error.

    Attributes:
        status: HTTP status of the answer.
        message: the server's reason.
        retry_after: seconds after which the server asks the client to try again; None if the
            server does not ask. A server asks only where the request did not run.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        """Keep what the answer said."""
        super().__init__(f"{status}: {message}{_advice(message)}")
        self.status = status
        self.message = message
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[InferenceFailed], tuple[int, str, float | None]]:
        """Let copies and pickles keep the three attributes."""
        # Exception's own __reduce__ would call __init__ with the one text
        return InferenceFailed, (self.status, self.message, self.retry_after)


def _advice(message: str) -> str:
    """Return what stands behind the server's reason: what the caller may do."""
    # Without a request id in brackets the server's log says nothing of this request.
    if message.startswith(f"{MODEL_FAILED} ("):
        return _WHERE
    expected = _OTHER_DTYPE.search(message)
    if expected is None or expected[1] not in DATATYPES or expected[1] in ("BYTES", "BF16"):
        return ""
    dtype = DATATYPES[expected[1]].numpy.name
    return f". Nothing is converted: pass `np.asarray(values, np.{dtype})`"


class MalformedAnswer(ClientFailure):
    """The server answered with success, but its answer cannot be read."""


class ClientClosed(ClientFailure, RuntimeError):
    """The client was closed before the call, or during it; the request may have run."""
