"""A whole `BatcherService` that listens nowhere.

Its inference threads and its settings file are real, and its loop turns when a test says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, succeed

from batcher.app.frontends import Ways
from batcher.app.service import BatcherService
from batcher.config.settings import ServerSettings, load_settings
from batcher.frontends.listening.tls import Tls
from batcher.serving.model_version import ModelVersion
from tests.support.crossing import Loop
from tests.support.models import rows

COMMON = "defaults: {device: cpu, warmup: false%s}\ncpu_pool_threads: 1\n"


class NoPorts:
    """Ports that nobody can connect to.

    Attributes:
        closed: how often they were closed.
    """

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        """Count it: no port is open."""
        self.closed += 1

    def renew(self, tls: Tls) -> None:
        """Do nothing: nobody sees the certificate."""


class MemoryService:
    """A service and the loop that it runs on.

    Attributes:
        folder: folder of the models.
        lines: lines of the access log.
        reads: number of times that the settings were read.
        ports: what the service listens on.
    """

    def __init__(self, base: Path, settings: str = "", defaults: str = "") -> None:
        """Write `settings` and the models' `defaults` to `base/config.yaml`; nothing starts."""
        self.folder = base / "models"
        self.lines: list[bytes] = []
        self.reads = 0
        self.ports = NoPorts()
        self.loop = Loop()
        self._path = base / "config.yaml"
        self.configure(settings, defaults)
        reactor: Any = self.loop.clock
        reactor.callFromThread = self.loop.call_from_thread
        self.service = BatcherService(
            load_settings(self._path, {}),
            base,
            reactor,
            ways=Ways(lambda *_: succeed(self.ports)),
            write_access_line=self.lines.append,
        )
        self.server = self.service.server

    def configure(self, settings: str = "", defaults: str = "") -> None:
        """Write other settings to the file."""
        self._path.write_text(settings + COMMON % (f", {defaults}" if defaults else ""))

    def read(self) -> ServerSettings:
        """Read the file."""
        self.reads += 1
        return load_settings(self._path, {})

    def begin(self) -> None:
        """Start the service, and do not wait."""
        with patch("batcher.app.frontends.open_sockets", lambda settings, base: []):
            self.service.startService()

    def start(self) -> None:
        """Start the service and wait until it serves."""
        self.begin()
        assert self.wait(self.service.ready) is None

    def wait(self, deferred: Deferred[Any]) -> Any:
        """Turn the loop until `deferred` has fired; return its result or failure."""
        return self.loop.wait_for(deferred)

    def begin_reload(self) -> Deferred[None]:
        """Begin to reload the file; return what `reload` of the service returns."""
        return self.service.reload(self.read)

    def reload(self) -> None:
        """Reload the file, which must succeed."""
        assert self.wait(self.begin_reload()) is None

    def refused(self) -> str:
        """Reload the file, which must be refused; return the reasons."""
        return str(self.loop.error_of(self.begin_reload()))

    def found(self) -> dict[str, ModelVersion]:
        """Return every version by its title."""
        return {version.title: version for version in self.server}

    def infer(self, name: str = "m", version: str = "") -> Deferred[Any]:
        """Send a row of ones; the loop has turned once after it."""
        answer = self.server.infer(name, {"x": rows(1)}, version)
        self.loop.clock.advance(0)
        return answer

    def value(self, answer: Deferred[Any]) -> float:
        """Wait for an answer and return what the model made of 1."""
        return float(self.wait(answer).outputs["y"][0, 0])

    def end(self) -> None:
        """Stop the service and wait until its threads have ended."""
        self.wait(self.service.stopService())
        while self.server.lifecycle.alive:
            self.loop.step()
