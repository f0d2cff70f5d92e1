"""A change of models in two phases, all or nothing.

First every version that comes is loaded beside the versions that serve. Then all of them change
places in one turn of the loop. If one version cannot be loaded, all that were loaded are let go and
nothing has changed.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from batcher.errors import ReloadRefused
from batcher.serving.model_version import ModelState, ModelVersion
from batcher.serving.repository.reading import FoundVersion
from batcher.serving.server import ModelServer


class Rollout:
    """Versions that come and versions that go. Reactor thread.

    `load`, and when that has fired `commit` or `give_up`.

    Attributes:
        coming: versions to load; each takes the place of what has its name and version, if there is
            such a version.
        going: versions to unload.
        models: how many models share the cores afterwards.
        reasons: why the change cannot be made, as far as that is known before a model is loaded.
    """

    def __init__(
        self,
        server: ModelServer,
        coming: list[FoundVersion],
        going: list[ModelVersion],
        models: int,
    ) -> None:
        """Look for faults in the definitions of what is `coming`; nothing else happens yet."""
        self.coming = coming
        self.going = going
        self.models = models
        self.reasons = [
            f"model {'/'.join(found.source.key)}: {line}"
            for found in coming
            for line in found.fault.splitlines()
        ]
        self._server = server
        self._known = {version.key for version in server}
        self._made: list[ModelVersion] = []

    def load(self) -> Deferred[None]:
        """Load what is coming; fires when all of it is ready.

        Fails with ReloadRefused if some of it is not, and gives up all of it.
        """
        for found in self.coming:
            self._made.append(self._server.lifecycle.make(*found.or_failure(self.models)))
        loading = [version.start() for version in self._made]
        return DeferredList(loading, consumeErrors=True).addCallback(self._check_ready)

    def _check_ready(self, results: list[tuple[bool, Any]]) -> None:
        reasons = [
            f"model {version.title}: {version.status_text}"
            if succeeded
            else result.getErrorMessage()
            for version, (succeeded, result) in zip(self._made, results, strict=True)
            if version.state is not ModelState.READY
        ]
        if reasons:
            self.give_up()
            raise ReloadRefused(*reasons)

    def commit(self) -> None:
        """Have the loaded versions take requests.

        Versions that are replaced, or go, answer the requests that they have taken.
        """
        while self._made:
            self._server.lifecycle.adopt(self._made.pop(0))
        for version in self.going:
            self._server.lifecycle.forget(version)

    def give_up(self) -> None:
        """Let go of what was loaded, as far as it does not serve."""
        for version in self._made:
            version.unload()

    def changes(self) -> list[str]:
        """Return what the rollout changes, in words."""
        loaded = [
            f"model {'/'.join(key)} {'replaced' if key in self._known else 'loaded'}"
            for key in (found.source.key for found in self.coming)
        ]
        return loaded + [f"model {version.title} unloaded" for version in self.going]
