"""The content of a version's files: they are looked at before the load, and read after it."""

from __future__ import annotations

from functools import partial
from math import inf

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from batcher.config.model_file import ModelDefinition
from batcher.errors import ModelLoadError
from batcher.models.version_files import SeenFiles, content_digest, seen_files
from batcher.workers.pools import Pools


class Content:
    """Tells a version from another of the same name and number. Reactor thread."""

    def __init__(self, definition: ModelDefinition, has_files: bool, pools: Pools) -> None:
        """Look at the files of `definition`; without `has_files` a program loads the model."""
        self._definition, self._pools = definition, pools
        error = ModelLoadError("a model that the program itself loads")
        self._seen: SeenFiles | Failure = Failure(error)
        self._has_files = has_files

    def look(self) -> Deferred[None]:
        """Look at the files; fires when that is done, or when there are none."""
        if not self._has_files:
            return maybeDeferred(self._found, self._seen)
        looking = partial(seen_files, self._definition)
        return maybeDeferred(self._pools.disk.run, 0, inf, looking).addBoth(self._found)

    def read(self) -> Deferred[bytes]:
        """Return what fires with a digest of the files that were looked at, or fails."""
        seen = self._seen
        if isinstance(seen, Failure):
            return maybeDeferred(seen.raiseException)
        return maybeDeferred(self._pools.files.run, 0, inf, partial(content_digest, seen))

    def _found(self, seen: SeenFiles | Failure) -> None:
        self._seen = seen
