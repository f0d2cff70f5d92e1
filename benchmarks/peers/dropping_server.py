"""This server with one part taken out: nothing is refused at the door, and nothing estimated.

So only requests whose deadline has passed are dropped. Of clients that name no deadline nothing is
dropped at all: the server's own deadline is 30 s. Takes the arguments of `serve.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from batcher.app import run as running
from batcher.app.cli import serve
from batcher.batching.admission import AdmitAll


def without_admission(*arguments: Any) -> Any:
    """Return the service, whose schedulers lose their admission whenever a model has changed."""
    service = with_admission(*arguments)

    def take_out() -> None:
        for version in service.server:
            version.scheduler.admission = AdmitAll(version.settings.max_batch_size)

    service.server.watch(take_out)
    return service


if __name__ == "__main__":
    with_admission = running.make_service
    running.make_service = without_admission  # the one switch of this benchmark
    serve()
