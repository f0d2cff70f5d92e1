"""The unit of batching: rows of one request that wait and run together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from batcher.core.spec import Array


class Part:
    """Rows of one request that stay together.

    A part is a whole request, or a piece of a request that is larger than a batch.

    Attributes:
        inputs: name to array of shape (rows, *row shape).
        rows: number of rows.
        nbytes: bytes of the inputs.
        group: shape key; a batch holds one group only.
        level: priority, 1 the highest.
        arrival: time in seconds at which the part was queued.
        deadline: time in seconds after which its result is worthless.
        overdue: batches that were sent since its turn has passed, where rows are padded.
        overtaken: rows behind it that were sent before it, where rows are padded.
        owner: the request that the part was cut from; None if the part is the request itself.
    """

    __slots__ = (
        "arrival",
        "deadline",
        "group",
        "inputs",
        "level",
        "nbytes",
        "overdue",
        "overtaken",
        "owner",
        "rows",
    )

    def __init__(
        self,
        inputs: Mapping[str, Array],
        rows: int,
        nbytes: int,
        group: Hashable,
        level: int,
        arrival: float,
        deadline: float,
        owner: object = None,
    ) -> None:
        """Store the attributes, which are not changed afterwards."""
        self.inputs = inputs
        self.rows = rows
        self.nbytes = nbytes
        self.group = group
        self.level = level
        self.arrival = arrival
        self.deadline = deadline
        self.owner = owner
        self.overdue = 0
        self.overtaken = 0
