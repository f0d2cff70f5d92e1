"""This server with one part taken out: it refuses nobody at the door and estimates nothing, so it drops only what has expired.

To clients that name no deadline it drops nothing at all: the server's own is 30 s. Takes the arguments of `serve.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from batcher import served
from batcher.cli import serve
from batcher.scheduling.admission import Admission
from batcher.scheduling.batch import Batch
from batcher.scheduling.policy import Cost, no_cost


class OnlyExpired(Admission):
    """Lets everybody in and knows nothing of what batches take."""

    def check(self, *request: Any) -> None:
        """Refuse nobody."""

    def cost(self, running: Sequence[Batch], now: float) -> Cost:
        """Return what estimates nothing."""
        return no_cost


if __name__ == "__main__":
    served.Admission = OnlyExpired  # type: ignore[misc]  # the one switch of this benchmark
    serve()
