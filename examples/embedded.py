#!/usr/bin/env python3
"""A Twisted service with its own Klein application and reactor, which holds models itself.

Requests reach the models without another hop of HTTP.

    python examples/embedded.py
    curl localhost:8090/count -F picture=@examples/digits/7.png

The program chooses its reactor (epoll here). The model server borrows the reactor for two things:
the time, and the way back from the inference thread. Settings of the whole process are the
program's own affair; two of them matter beside a model:

- `sys.setswitchinterval(0.0002)`: an eager model takes the interpreter lock once an operator, and
  each time may have to wait that long for a busy event loop (5 ms by default).
- `torch_threads` of the models together at most the cores, less one for the loop.
"""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet import epollreactor

epollreactor.install()

from io import BytesIO

import numpy as np
from klein import Klein
from PIL import Image
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.web.iweb import IRequest
from twisted.web.server import Site

from batcher import ModelServer, ModelSettings, load_model_definition
from batcher.errors import BatcherError

ROOT = Path(__file__).resolve().parent.parent


class DigitCounter:
    """The program's own service: counts the digits on the pictures that clients send."""

    app = Klein()

    def __init__(self, server: ModelServer) -> None:
        """Ask `server` for the digits."""
        self._server = server
        self._seen: dict[int, int] = {}

    @app.route("/count", methods=["POST"])
    async def count(self, request: IRequest) -> str:
        """Read a picture, classify it in one batch with other clients' pictures, and count it."""
        picture = Image.open(BytesIO(request.args[b"picture"][0])).convert("L").resize((8, 8))
        image = (np.asarray(picture, dtype=np.float32) / 255)[np.newaxis, np.newaxis]
        try:
            response = await self._server.infer("digits", {"image": image})
        # the queue is full, the deadline passed, …: each class of error says which
        except BatcherError as error:
            request.setResponseCode(error.http_status)
            return f"{error}\n"
        digit = int(response.outputs["scores"].argmax())
        self._seen[digit] = self._seen.get(digit, 0) + 1
        return (
            f"a {digit}, number {self._seen[digit]} of its kind; it ran in a batch of "
            f"{response.batch_size}\n"
        )


def main() -> None:
    """Load the model, then serve."""
    sys.setswitchinterval(0.0002)
    server = ModelServer(reactor, reactor.callFromThread)
    definition = load_model_definition("digits", "1", ROOT / "models" / "digits" / "1")
    loaded = server.add(definition, ModelSettings(max_batch_size=32, torch_threads=1))

    def listen(_: None) -> Deferred[object]:
        site = Site(DigitCounter(server).app.resource())
        return serverFromString(reactor, "tcp:8090:interface=127.0.0.1").listen(site)

    def failed(failure: object) -> None:
        print(failure, file=sys.stderr)
        reactor.stop()

    loaded.addCallback(listen).addCallbacks(
        lambda _: print("ready on http://127.0.0.1:8090", flush=True), failed
    )
    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: server.drain().addCallback(lambda _: server.stop())
    )
    reactor.run()


if __name__ == "__main__":
    main()
