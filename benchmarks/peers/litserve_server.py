"""LitServe: FastAPI in front, one worker process, batches up to 64, 5 ms of waiting, raw bytes."""

import os
import signal
import sys
from typing import Annotated

import litserve
import numpy as np
from fastapi import Body, Response

from benchmarks.peers.models import INPUT, chosen_model

BATCH, WAIT_S = int(os.environ.get("PEER_BATCH", "64")), 0.005

Octets = Annotated[bytes, Body(media_type="application/octet-stream")]
"""What makes FastAPI hand over a body as it is; LitServe's own kinds are JSON and forms."""


class Model(litserve.LitAPI):
    """Runs a batch."""

    def setup(self, device: str) -> None:
        """Load the model in the worker process; the environment names its device."""
        self.run = chosen_model()

    def decode_request(self, request: Octets) -> np.ndarray:
        """Return the row in a body."""
        return np.frombuffer(request, INPUT)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Return the rows as one array."""
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Run the rows as one batch."""
        return self.run(x)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """Return the rows of a result."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> Response:
        """Return a row as a body."""
        return Response(output.tobytes(), media_type="application/octet-stream")


def interrupt(number: int, frame: object) -> None:
    """End as at a press of Ctrl-C: only then does LitServe end its other processes."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    api = Model(max_batch_size=BATCH, batch_timeout=WAIT_S, api_path="/inference")
    server = litserve.LitServer(api, accelerator="cpu", timeout=False)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="error",
    )
