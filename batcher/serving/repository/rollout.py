"""A change of models in two phases.

What comes is loaded beside what serves, then all change places in one turn of the loop.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from batcher.config.model_file import ModelDefinition
from batcher.errors import ConfigError, ReloadRefused
from batcher.serving.model_version import ModelState, ModelVersion
from batcher.serving.repository.source import VersionSource
from batcher.serving.server import ModelServer


class Rollout:
    """Versions that come and versions that go. Reactor thread.

    `load`, and when that has fired `commit` or `give_up`.

    Attributes:
        coming: what is to be loaded, beside or in place of what has its name and version.
        going: what is to be unloaded.
        models: how many are to share the cores.
        reasons: why it cannot be, as far as that is known before a model is loaded.
    """

    def __init__(
        self,
        server: ModelServer,
        coming: list[VersionSource],
        going: list[ModelVersion],
        models: int,
    ) -> None:
        """Read the definitions of what is `coming`; nothing else happens yet."""
        self.coming = coming
        self.going = going
        self.models = models
        self.reasons: list[str] = []
        self._server = server
        self._known = {(served.spec.name, served.spec.version) for served in server}
        self._definitions = [found for one in coming if (found := self._define(one)) is not None]
        self._made: list[ModelVersion] = []

    def _define(self, one: VersionSource) -> ModelDefinition | None:
        try:
            return one.define()
        except ConfigError as err:
            self.reasons.extend(
                f"model {'/'.join(one.key)}: {line}" for line in str(err).splitlines()
            )
            return None

    def load(self) -> Deferred[None]:
        """Load what is coming; fires when all of it is ready, fails with ReloadRefused, and all is given up, if some is not."""
        for definition, one in zip(self._definitions, self.coming, strict=True):
            self._made.append(self._server.make(definition, one.shared(self.models)))
        return DeferredList(
            [served.start() for served in self._made], consumeErrors=True
        ).addCallback(self._check_ready)

    def _check_ready(self, results: list[tuple[bool, Any]]) -> None:
        reasons = [
            result.getErrorMessage() if not succeeded else f"model {served.title}: {served.told}"
            for served, (succeeded, result) in zip(self._made, results, strict=True)
            if served.state is not ModelState.READY
        ]
        if reasons:
            self.give_up()
            raise ReloadRefused(*reasons)

    def commit(self) -> None:
        """Have what came take requests.

        What it took the place of, and what goes, answers what it had taken.
        """
        for served in self._made:
            self._server.adopt(served)
        for served in self.going:
            self._server.forget(served)

    def give_up(self) -> None:
        """Let go of what was loaded."""
        for served in self._made:
            served.unload()

    def told(self) -> list[str]:
        """Return what it does, in words."""
        come = [
            f"model {'/'.join(one.key)} {'replaced' if one.key in self._known else 'loaded'}"
            for one in self.coming
        ]
        return come + [f"model {served.title} unloaded" for served in self.going]
