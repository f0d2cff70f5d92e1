"""The states of trials of new versions: read before models load, and written beside the loop."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.serving.canaries.records import Record, read_records, write_record
from batcher.serving.repository.disk import ModelDisk
from batcher.serving.server import ModelServer

_log = Logger()


class TrialRecords:
    """Keeps the states of trials in the folder `state_folder`. Reactor thread."""

    def __init__(self, server: ModelServer, disk: ModelDisk, settings: ServerSettings) -> None:
        """Keep what `server` has decided, on `disk`; nothing is read yet."""
        self._disk = disk
        self._folder = disk.base / settings.state_folder
        self._is_read = False
        server.traffic.save = self._save

    def recall(self, settings: ServerSettings) -> Deferred[None]:
        """Put the records on disk into `settings`, once, and only if a model has a canary."""
        if self._is_read or not settings.has_canary:
            return succeed(None)
        self._is_read = True
        known = settings.records

        def put(found: dict[str, Record]) -> None:
            known.update({name: found[name] for name in found.keys() - known.keys()})

        return self._disk.read(partial(read_records, self._folder)).addCallback(put)

    def _save(self, name: str, record: Record) -> Deferred[None]:
        writing = maybeDeferred(self._disk.read, partial(write_record, self._folder, name, record))
        return writing.addErrback(self._failed, name)

    def _failed(self, failure: Failure, name: str) -> None:
        _log.warn(
            "the state of the trial of model {name} is not kept; after a restart the trial begins "
            "anew: {reason}",
            name=name,
            reason=failure.getErrorMessage(),
        )
