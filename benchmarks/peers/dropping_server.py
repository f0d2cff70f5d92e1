"""This server with one part taken out.

It refuses nobody at the door and estimates nothing, so it drops only what has expired.

To clients that name no deadline it drops nothing at all: the server's own is 30 s. Takes the
arguments of `serve.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from batcher.app import run as running
from batcher.app.cli import serve


def without_admission(*arguments: Any) -> Any:
    """Return the service, whose schedulers lose their admission whenever a model has changed."""
    service = with_admission(*arguments)

    def take_out() -> None:
        for served in service.server:
            served.scheduler.admission = None

    service.server.watch(take_out)
    return service


if __name__ == "__main__":
    with_admission = running._service
    running._service = without_admission  # the one switch of this benchmark
    serve()
