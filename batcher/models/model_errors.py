"""Which errors a model may raise, and what a client reads when a model raises.

A model's code may raise anything, the server's own errors included. Taken at their word, those
errors would do harm: a `WorkerLost` although no worker was lost would have its batch run again
without end, and a `QueueFull` would ask a client to repeat a request that has already run. So an
error of a model keeps its meaning only if it speaks of the request or of the model:

    the model raises                             the client gets
    InvalidInput (the request is at fault)       that error
    ModelError and those below it (OutOfMemory)  that error
    KnownToFail, which only the server decides   a ModelError that says what was raised
    any other error of the server                a ModelError that says what was raised
    any other exception                          a ModelError that says what was raised
"""

from __future__ import annotations

from contextlib import suppress

from batcher.core.error_text import MAX_MESSAGE_CHARS, summary
from batcher.errors import (
    BatcherError,
    ClientError,
    InvalidInput,
    KnownToFail,
    ModelError,
    Unavailable,
)
from batcher.models.own_code import own_place

_BEGINNING = "the model failed: "


def allowed_from_model(error: BaseException) -> BaseException:
    """Return `error`, or a ModelError in its place if a model may not raise `error`.

    Args:
        error: what a model raised, or returned in the place of a row. What is none of the server's
            own errors is returned as it is: `model_error` describes it to the client.

    Any thread.
    """
    if not isinstance(error, BatcherError):
        return error
    allowed = isinstance(error, InvalidInput | ModelError) and not isinstance(error, KnownToFail)
    return error if allowed and _has_valid_status(error) else _described(error)


def model_error(error: BaseException) -> BatcherError:
    """Return the error that a client gets for `error`, which was raised while a batch ran.

    The cause of a new error is `error`. Any thread.
    """
    return error if isinstance(error, BatcherError) else _described(error)


def is_fault(error: BaseException) -> bool:
    """Return whether `error`, of a batch or a hook, is a fault of the model's code.

    A request that the model refuses is the client's fault, and a lost worker is nobody's. Any
    thread.
    """
    return not isinstance(error, ClientError | Unavailable)


def _has_valid_status(error: BatcherError) -> bool:
    """Return whether status and codes of `error` can be written into an answer.

    A class of a model's author may have changed them, or made properties of them that raise.

    Any thread.
    """
    with suppress(BaseException):
        status, code, name = error.http_status, error.code, error.grpc_code
        place = getattr(error, "place", "")
        return (
            type(status) is int
            and 400 <= status < 600
            and type(code) is type(name) is type(place) is str
            and code.isascii()
        )
    return False


def _described(error: BaseException) -> ModelError:
    """Return a ModelError that describes `error` in words. Any thread."""
    text = summary(error, MAX_MESSAGE_CHARS - len(_BEGINNING))
    described = ModelError(f"{_BEGINNING}{text}")
    described.__cause__ = error
    described.place = str(own_place(error) or "")
    return described
