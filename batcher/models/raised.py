"""What models raise, and what clients are told of it.

A model's code may raise anything, also the server's own errors: a `WorkerLost` that never was would
have its batch run again without end, a `QueueFull` would ask a client to repeat what has run. So
what a model raises is taken for what it says only if that is something of the request
(`InvalidInput`) or of the model (`ModelError` and those below it, as `OutOfMemory`).
"""

from __future__ import annotations

from contextlib import suppress

from batcher.core.error_text import MOST_MESSAGE, summary
from batcher.errors import BatcherError, InvalidInput, KnownToFail, ModelError

_BEGINNING = "the model failed: "


def allowed_from_model(error: BaseException) -> BaseException:
    """Return `error`, raised by a model or put in a row's place, or a ModelError if a model may not raise it. Any thread."""
    if not isinstance(error, BatcherError):
        return error
    allowed = isinstance(error, InvalidInput | ModelError) and not isinstance(error, KnownToFail)
    return error if allowed and _can_be_told(error) else _model_error(error)


def _can_be_told(error: BatcherError) -> bool:
    """Return whether its hints, which a model's own class may have changed, can be written into an answer."""
    with suppress(BaseException):  # they may be properties
        status, code, name = error.http_status, error.code, error.grpc_code
        return (
            type(status) is int
            and 400 <= status < 600
            and type(code) is type(name) is str
            and code.isascii()
        )
    return False


def model_error(error: BaseException) -> BatcherError:
    """Return what a client is told of `error`, raised while a batch ran.

    The cause keeps the original. Any thread.
    """
    return error if isinstance(error, BatcherError) else _model_error(error)


def _model_error(error: BaseException) -> ModelError:
    told = ModelError(f"{_BEGINNING}{summary(error, MOST_MESSAGE - len(_BEGINNING))}")
    told.__cause__ = error
    return told
