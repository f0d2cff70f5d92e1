"""How many rows the holder of a key may request: each entry of `quotas` in `config.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from batcher.config.reading import Number
from batcher.config.values import Count, Section


class Quota(Section):
    """The quota of one key.

    Attributes:
        rows_per_s: rows a second, in the long run.
        burst_rows: rows at once after a pause; None is the rows of one second, at least 1.
        name: name of the key in the metrics, where the key itself is a secret; None is `quota-1`
            for the first quota, `quota-2` for the second, and so on.
    """

    rows_per_s: Annotated[Number, Field(gt=0, le=1 << 31)]
    burst_rows: Count | None = None
    name: Annotated[str, Field(min_length=1)] | None = None

    @property
    def burst(self) -> float:
        """Rows that may be requested at once."""
        return self.burst_rows or max(1.0, self.rows_per_s)
