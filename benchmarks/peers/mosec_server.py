"""Mosec, which has a front in Rust and one worker in Python.

Raw bytes in and out, batches up to 64, at most 5 ms of waiting (Mosec's own knobs).
"""

from __future__ import annotations

import os

import numpy as np
from mosec import Server, Worker

from benchmarks.peers.models import INPUT, chosen_model

BATCH, WAIT_MS = int(os.environ.get("PEER_BATCH", "64")), int(os.environ.get("PEER_WAIT_MS", "5"))


class Model(Worker):
    """Runs a batch."""

    resp_mime_type = "application/octet-stream"  # else Mosec says JSON

    def __init__(self) -> None:
        """Load the model in the worker process."""
        self.run = chosen_model()

    def deserialize(self, data: bytes) -> np.ndarray:
        """Return the row in a body."""
        return np.frombuffer(data, INPUT)

    def serialize(self, data: np.ndarray) -> bytes:
        """Return a row as a body."""
        return data.tobytes()

    def forward(self, data: list[np.ndarray]) -> list[np.ndarray]:
        """Run the rows as one batch."""
        return list(self.run(np.stack(data)))


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=1, max_batch_size=BATCH, max_wait_time=WAIT_MS)
    server.run()
