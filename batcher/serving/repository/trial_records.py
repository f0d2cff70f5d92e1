"""The states of trials of new versions: read before models load, and written beside the loop.

Several servers may have one folder: copies of a server, or the next server while the one before
ends. Each has trials of its own, and two that write one file by turns would leave what belongs to
neither. So a server writes the records that it holds the locks of, and holds them to its end. The
others try their trials all the same and say in the log that they keep nothing; the first that asks
after the end of the holder gets the lock.

Refused: a second server that does not start. The next server could not take over from the last.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.serving.canaries.records import Record, read_records, record_path, write_record
from batcher.serving.repository.disk import ModelDisk
from batcher.serving.repository.stores.locks import FileLock, try_lock
from batcher.serving.server import ModelServer

_log = Logger()


class TrialRecords:
    """Keeps the states of trials in the folder `state_folder`. Reactor thread."""

    def __init__(self, server: ModelServer, disk: ModelDisk, settings: ServerSettings) -> None:
        """Keep what `server` has decided, on `disk`; nothing is read yet."""
        self._disk = disk
        self._folder = disk.base / settings.state_folder
        self._is_read = False
        self._locks: dict[str, FileLock] = {}  # changed on the disk's thread alone
        self._not_kept: set[str] = set()
        server.traffic.save, server.traffic.let_go = self._save, self._let_go

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
        writing = maybeDeferred(self._disk.read, partial(self._write, name, record))
        return writing.addCallbacks(self._written, self._failed, (name,), errbackArgs=(name,))

    def _write(self, name: str, record: Record) -> bool:
        """Write a record; return whether no other server holds its lock. Disk thread."""
        if name not in self._locks:
            path = record_path(self._folder, name).with_suffix(".lock")
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = try_lock(path, alone=True)
            if lock is None:
                return False
            self._locks[name] = lock
        write_record(self._folder, name, record)
        return True

    def _written(self, is_kept: bool, name: str) -> None:
        """Say once that another server keeps its own state, and not each time."""
        if is_kept:
            self._not_kept.discard(name)
        elif name not in self._not_kept:
            self._not_kept.add(name)
            _log.warn(
                "the state of the trial of model {name} is not kept: expected a state_folder of "
                "this server's own; another server keeps its trial in {folder}. After a restart "
                "this server goes on with that one",
                name=name,
                folder=str(self._folder),
            )

    def _let_go(self) -> Deferred[None]:
        """Let other servers keep their trials, since this one ends; fires when that is done."""
        if not self._locks:
            return succeed(None)
        return maybeDeferred(self._disk.read, self._release).addErrback(lambda _: None)

    def _release(self) -> None:
        """Let go of all locks. Disk thread."""
        while self._locks:
            self._locks.popitem()[1].release()

    def _failed(self, failure: Failure, name: str) -> None:
        _log.warn(
            "the state of the trial of model {name} is not kept; after a restart the trial begins "
            "anew: {reason}",
            name=name,
            reason=failure.getErrorMessage(),
        )
