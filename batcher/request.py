"""A request and its answer as values: what crosses from a protocol to the scheduler and back.

They are named tuples, not frozen dataclasses: both cannot be changed, but a named tuple is made in a third of the time, and
one of each is made for every request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from batcher.spec import Array


class Parameters(NamedTuple):
    """What a request asks for besides its result.

    Attributes:
        deadline: when the request is worthless, in seconds on the server's clock; None takes the model's default.
        priority: its level, 1 the highest; 0 is the model's default level.
        request_id: the client's name for it, only echoed and logged.
    """

    deadline: float | None = None
    priority: int = 0
    request_id: str = ""


NO_PARAMETERS = Parameters()


class InferenceRequest(NamedTuple):
    """Rows for one model, checked against its specification.

    Attributes:
        model: the model's name.
        version: the version asked for; empty means the newest that is ready.
        inputs: name to array of shape (rows, *row shape); read only.
        rows: length of the first axis of every input, at least 1.
        parameters: deadline, priority and id.
    """

    model: str
    version: str
    inputs: Mapping[str, Array]
    rows: int
    parameters: Parameters = NO_PARAMETERS


class Timing(NamedTuple):
    """Where a request's time went.

    Attributes:
        queue: seconds between arrival and the start of its batch; of its last batch if it was cut.
        compute: seconds that its batch took on the worker, collation included; the sum over batches if it was cut.
        batch_size: rows of the batch it ran in; of the largest if it was cut.
    """

    queue: float
    compute: float
    batch_size: int


class InferenceResponse(NamedTuple):
    """One request's own rows of the result.

    Attributes:
        model: the model's name.
        version: the version that answered.
        outputs: name to array of shape (rows, *row shape).
        timing: where the time went.
    """

    model: str
    version: str
    outputs: Mapping[str, Array]
    timing: Timing
