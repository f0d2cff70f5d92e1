"""What waits and runs as one piece: a whole request, or a piece of one larger than a batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from batcher.core.spec import Array


class Part:
    """Rows of one request that stay together.

    A whole request, or a piece of one larger than a batch.

    Attributes:
        inputs: name to array of shape (rows, *row shape).
        rows: its rows.
        nbytes: bytes of its inputs.
        group: shape key; a batch holds one group only.
        level: priority, 1 the highest.
        arrival: when it was queued, in seconds.
        deadline: when it is worthless, in seconds.
        owner: whatever the scheduler wants back with it.
    """

    __slots__ = ("arrival", "deadline", "group", "inputs", "level", "nbytes", "owner", "rows")

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
        """Store the attributes; they are not changed afterwards."""
        self.inputs = inputs
        self.rows = rows
        self.nbytes = nbytes
        self.group = group
        self.level = level
        self.arrival = arrival
        self.deadline = deadline
        self.owner = owner
