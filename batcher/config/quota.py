"""How many rows a key may ask for: each entry of `quotas` in `config.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from batcher.config.reading import Number
from batcher.config.values import Count, Section


class Quota(Section):
    """The quota of one key.

    Attributes:
        rows_per_s: rows that it may ask for in a second, in the long run.
        burst_rows: rows that it may ask for at once after a pause; None is one second's worth, at
            least 1.
        name: what the metrics call it, who must not tell the key; None is `quota-1` for the first,
            and so on.
    """

    rows_per_s: Annotated[Number, Field(gt=0, le=1 << 31)]
    burst_rows: Count | None = None
    name: Annotated[str, Field(min_length=1)] | None = None

    @property
    def burst(self) -> float:
        """Rows that may be asked for at once."""
        return self.burst_rows or max(1.0, self.rows_per_s)
