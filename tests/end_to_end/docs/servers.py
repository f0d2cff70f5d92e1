"""The servers that pages ask: one for all, and one for each other line of `batcher serve`."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tests.end_to_end.docs.workspace import Workspace
from tests.end_to_end.processes import Process, started, until

START_LIMIT_S = 300.0
"""Seconds for a start: PyTorch is imported twice, and a line may compile a model."""


class Servers:
    """Servers that run in the workspace, until the last page has been run.

    Attributes:
        shared: serves the models that the workspace links.
    """

    def __init__(self, workspace: Workspace, shared: Process, stack: ExitStack) -> None:
        """End all that is started with `stack`."""
        self._workspace = workspace
        self.shared = shared
        self._stack = stack
        self._started: dict[tuple[str, ...], Process] = {}

    def show(self, models: set[str], changed: bool) -> None:
        """Have the shared server serve `models`, and read them again if a file has `changed`."""
        if not self._workspace.serve(models) and not changed:
            return
        reloads = self.shared.metric("batcher_reloads_total")
        self.shared.signal(signal.SIGHUP)
        until(lambda: self.shared.metric("batcher_reloads_total") > reloads, START_LIMIT_S)
        assert self.shared.metric("batcher_config_last_reload_successful"), self.shared.errors

    def start(self, arguments: Sequence[str]) -> Process:
        """Return a server of `batcher serve` with these arguments.

        Two pages with the same line, and the same file in it, share one.
        """
        files = [self._workspace.folder / word for word in arguments]
        key = (*arguments, *(file.read_text() for file in files if file.suffix == ".py"))
        if key not in self._started:
            self._started[key] = self._stack.enter_context(
                started(
                    self._workspace.folder,
                    *arguments,
                    "--port",
                    "0",
                    command=("-m", "batcher.app.cli", "serve"),
                    environment=self._workspace.environment,
                    working=self._workspace.folder,
                    ready=False,
                )
            )
            self._started[key].wait_ready(START_LIMIT_S)
        return self._started[key]


@contextmanager
def running_servers(workspace: Workspace) -> Iterator[Servers]:
    """Run the shared server, and those that pages start, while the context is open."""
    workspace.serve({"digits"})
    settings = (f"model_repository={workspace.served}", "sagemaker=true")
    pairs = [word for setting in settings for word in ("--set", setting)]
    with ExitStack() as stack:
        shared = stack.enter_context(started(workspace.folder, *pairs, ready=False))
        shared.wait_ready(START_LIMIT_S)
        yield Servers(workspace, shared, stack)
