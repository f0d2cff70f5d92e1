"""Answers that are written away from the loop: the model has run, and its outputs are large.

Text is written in the process for heavy codecs, since each value costs a step. Bytes are only
copied, on the CPU pool.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from batcher.core.element_sizes import about_written_nbytes
from batcher.core.request import NO_PARAMETERS, InferenceResponse, Parameters
from batcher.errors import Unavailable
from batcher.serving.servable import Servable

Result = TypeVar("Result")


def write_heavy(
    servable: Servable,
    response: InferenceResponse,
    parameters: Parameters,
    encode: Callable[..., Result],
    *arguments: Any,
) -> Deferred[Result]:
    """Fire with `encode(response, *arguments)`, called in the process for heavy codecs.

    The writing has until the deadline in `parameters`, or without one as long as a request that
    comes now. Reactor thread.

    Raises:
        QueueFull: too many bytes wait for that process already.
    """
    # The outputs exist already: what counts is what writing adds. Else two answers of four million
    # words each, 187 MiB of objects, are more than the pool takes.
    nbytes = about_written_nbytes(response.outputs)
    try:
        return servable.run_heavy(nbytes, parameters, encode, response, *arguments)
    except Unavailable as err:
        err.retry_after = 0  # the model has run: a client must not be told to send it again
        raise


def write_large(
    servable: Servable, write: Callable[..., Result], *arguments: Any
) -> Deferred[Result]:
    """Fire with `write(*arguments)`, called on the CPU pool. Reactor thread.

    The outputs exist already, and are let go of the sooner, the sooner they are copied. So they
    count as no bytes of the pool: answers that one batch brings together are all written.

    Raises:
        QueueFull: too many tasks wait for the pool already.
    """
    try:
        return servable.run_on_pool(0, partial(write, *arguments), NO_PARAMETERS)
    except Unavailable as err:
        err.retry_after = 0  # as above
        raise
