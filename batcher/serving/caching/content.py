"""The content of a version's files: they are looked at before the load, and read after it.

Two things ask for it: answers that servers share, and what is kept of `preprocess`.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from importlib.util import find_spec
from math import inf

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from batcher.config.cache import Cache
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.installing import EXTRAS, how_to_install
from batcher.errors import ConfigError, ModelLoadError
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

    def read_hooks(self) -> Deferred[bytes]:
        """Return what fires with a digest of what `preprocess` may read, or fails.

        That is every file but those that say what the model is called and what it has learnt.
        """
        seen, definition = self._seen, self._definition
        if isinstance(seen, Failure):
            return maybeDeferred(seen.raiseException)
        left_out = {definition.folder / "model.yaml", definition.weights}
        if definition.format != "python":
            left_out.add(definition.file)
        read = partial(content_digest, seen, {path for path in left_out if path is not None})
        spec = definition.spec
        forms = repr((definition.format, definition.entry, spec.inputs, spec.prepared)).encode()
        found = maybeDeferred(self._pools.files.run, 0, inf, read)
        return found.addCallback(lambda digest: blake2b(digest + forms, digest_size=32).digest())

    def _found(self, seen: SeenFiles | Failure) -> None:
        self._seen = seen


def content_of(
    definition: ModelDefinition, settings: ModelSettings, has_files: bool, pools: Pools
) -> Content | None:
    """Return the content of a version whose settings need it; None where they do not.

    Raises ConfigError: they need an extra that is not installed. Arguments are as for `Content`.
    """
    cache = settings.cache
    if cache is None or definition.plan is not None:
        return None
    is_needed = _shares_answers(cache) or cache.inputs
    return Content(definition, has_files, pools) if is_needed else None


def _shares_answers(settings: Cache) -> bool:
    """Return whether `settings` ask for a Redis.

    Raises ConfigError: the extra `redis` is not installed.
    """
    if settings.redis is None:
        return False
    if find_spec(EXTRAS["redis"]) is None:
        raise ConfigError(
            f"cache.store: expected the extra redis for {settings.redis.place}; got none. It "
            f"comes with {how_to_install('redis')}"
        )
    return True
