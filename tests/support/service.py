"""A whole `BatcherService` that listens nowhere.

Real inference threads, stepped by the test, settings in a real file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, succeed

from batcher.app.service import BatcherService
from batcher.config.settings import ServerSettings, load_settings
from batcher.frontends.web.listening.sockets import Listening, Tls
from batcher.serving.model_version import ModelVersion
from tests.support.crossing import Loop
from tests.support.models import rows

COMMON = "defaults: {device: cpu, warmup: false%s}\ncpu_pool_threads: 1\n"


class NoPorts:
    """Nobody can connect."""

    def close(self) -> None:
        """Nothing is open."""

    def renew(self, tls: Tls) -> None:
        """Nobody can see it."""


class MemoryService:
    """A service and the loop that turns it.

    Attributes:
        folder: of the models.
        lines: of the access log.
        reads: how often the settings were read.
    """

    def __init__(self, base: Path, settings: str = "", defaults: str = "") -> None:
        """Configure it by `settings` in `base/config.yaml`, and `defaults` of models.

        Nothing starts.
        """
        self.folder = base / "models"
        self.lines: list[bytes] = []
        self.reads = 0
        self.loop = Loop()
        self._path = base / "config.yaml"
        self.configure(settings, defaults)
        reactor: Any = self.loop.clock
        reactor.callFromThread = self.loop.call_from_thread
        self.service = BatcherService(
            load_settings(self._path, {}),
            base,
            reactor,
            listen=_listen,
            write_access_line=self.lines.append,
        )
        self.server = self.service.server

    def configure(self, settings: str = "", defaults: str = "") -> None:
        """Write other settings into the file."""
        self._path.write_text(settings + COMMON % (f", {defaults}" if defaults else ""))

    def read(self) -> ServerSettings:
        """Read the file."""
        self.reads += 1
        return load_settings(self._path, {})

    def begin(self) -> None:
        """Start it, and do not wait."""
        with patch("batcher.app.service.open_sockets", lambda settings, base: []):
            self.service.startService()

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.begin()
        assert self.wait(self.service.ready) is None

    def wait(self, deferred: Deferred[Any]) -> Any:
        """Turn the loop until `deferred` has fired; return its result or failure."""
        return self.loop.wait_for(deferred)

    def ask(self) -> Deferred[None]:
        """Ask for a reload of the file."""
        return self.service.reload(self.read)

    def reload(self) -> None:
        """Reload the file, which must succeed."""
        assert self.wait(self.ask()) is None

    def refused(self) -> str:
        """Reload the file, which must be refused; return the reasons."""
        return str(self.loop.error_of(self.ask()))

    def found(self) -> dict[str, ModelVersion]:
        """Return every version by its title."""
        return {served.title: served for served in self.server}

    def infer(self, name: str = "m", version: str = "") -> Deferred[Any]:
        """Send a row of ones; the loop has turned once after it."""
        answer = self.server.infer(name, {"x": rows(1)}, version)
        self.loop.clock.advance(0)
        return answer

    def value(self, answer: Deferred[Any]) -> float:
        """Wait for an answer and return what the model made of 1."""
        return float(self.wait(answer).outputs["y"][0, 0])

    def end(self) -> None:
        """Stop it and wait until its threads have ended."""
        self.wait(self.service.stopService())
        while self.server._alive:
            self.loop.step()


def _listen(*_: object) -> Deferred[Listening]:
    return succeed(NoPorts())
