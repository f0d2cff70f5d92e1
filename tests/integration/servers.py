"""Servers behind a balancer: each on a port that its successor takes over."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tests.end_to_end.processes import Process, started, write_model

DOUBLES = """
class Model:
    def predict(self, inputs):
        return {"y": inputs["x"] * 2}
"""


def serving(folder: Path, port: int, *settings: str) -> AbstractContextManager[Process]:
    """Run a server of a model that doubles on `port`, with `settings`, each `KEY=VALUE`."""
    if not (folder / "models").exists():
        write_model(folder / "models", "doubles", DOUBLES)
    pairs = (f"model_repository={folder / 'models'}", "defaults.torch_threads=1", *settings)
    command = ("serve.py", "--port", str(port))
    return started(folder, *(part for pair in pairs for part in ("--set", pair)), command=command)
