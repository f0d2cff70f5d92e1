"""A change of models in two phases, all or nothing.

First every version that comes is loaded beside the versions that serve. Then all of them change
places in one turn of the loop. If one version cannot be loaded, all that were loaded are let go and
nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.python.failure import Failure

from batcher.errors import ReloadRefused
from batcher.serving.model_version import ModelState, ModelVersion
from batcher.serving.repository.reading import FoundVersion
from batcher.serving.server import ModelServer

Result = TypeVar("Result")


class Rollout:
    """Versions that come and versions that go. Reactor thread.

    `make` loads what comes, and calls what makes all changes, `commit` among them.

    Attributes:
        coming: versions to load; each takes the place of what has its name and version, if there is
            such a version.
        going: versions to unload.
        instances: how many instances of all models share the cores afterwards.
        left_out: why something in the repository is not served, by its path there.
        reasons: why the change cannot be made, as far as that is known before a model is loaded.
    """

    def __init__(
        self,
        server: ModelServer,
        coming: list[FoundVersion],
        going: list[ModelVersion],
        instances: int,
        left_out: dict[str, str],
    ) -> None:
        """Look for faults in the definitions of what is `coming`; nothing else happens yet."""
        self.coming = coming
        self.going = going
        self.instances = instances
        self.left_out = left_out
        self.reasons = [
            f"model {'/'.join(found.source.key)}: {line}"
            for found in coming
            for line in found.fault.splitlines()
        ]
        self._server = server
        self._known = {version.key for version in server}
        self._made: list[ModelVersion] = []

    def make(self, commit: Callable[[], Result]) -> Deferred[Result]:
        """Load what is coming, and call `commit` when all of it is ready.

        Whatever fails, what was loaded and does not serve is let go of. The failure is
        ReloadRefused if something cannot be loaded.
        """
        made = maybeDeferred(self._load).addCallback(lambda _: commit())
        return made.addErrback(self._give_up)

    def _load(self) -> Deferred[None]:
        for found in self.coming:
            self._made.append(self._server.lifecycle.make(*found.or_failure(self.instances)))
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
            raise ReloadRefused(*reasons)

    def commit(self) -> None:
        """Have the loaded versions take requests.

        Versions that are replaced, or go, answer the requests that they have taken.
        """
        while self._made:
            self._server.lifecycle.adopt(self._made.pop(0))
        for version in self.going:
            self._server.lifecycle.forget(version)

    def _give_up(self, failure: Failure) -> Failure:
        for version in self._made:
            version.unload()
        return failure

    def changes(self) -> list[str]:
        """Return what the rollout changes, in words."""
        loaded = [
            f"model {'/'.join(key)} {'replaced' if key in self._known else 'loaded'}"
            for key in (found.source.key for found in self.coming)
        ]
        return loaded + [f"model {version.title} unloaded" for version in self.going]
