"""How much one request may ask of a decoder: what the model's queue could ever hold.

A body of a few megabytes can stand for more values than the queue would ever take. A decoder that
knows the queue's bounds refuses such a body after it has read as much as fits, and not only when
all of the body has become arrays.
"""

from __future__ import annotations

from sys import maxsize
from typing import NamedTuple

from batcher.errors import TooLarge


class DecodingLimits(NamedTuple):
    """Bounds of the inputs of one request.

    Attributes:
        max_rows: most rows.
        max_bytes: most bytes of all arrays of an input, counted as the queue counts them.
    """

    max_rows: int = maxsize
    max_bytes: int = maxsize

    def check(self, rows: int, nbytes: int, name: str) -> None:
        """Check that `rows` rows and `nbytes` bytes of the input `name` are within the limits.

        Raises:
            TooLarge: they are not.
        """
        if rows > self.max_rows or nbytes > self.max_bytes:
            raise TooLarge(
                f"input {name!r}: expected at most {self.max_rows} rows (max_queue_rows) and "
                f"{self.max_bytes} bytes (max_queue_bytes), what the queue can ever hold; got at "
                f"least {rows} rows and {nbytes} bytes"
            )


NO_LIMITS = DecodingLimits()
"""Limits of inputs that no queue waits for, such as the samples beside a model."""
