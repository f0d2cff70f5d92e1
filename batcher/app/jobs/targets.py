"""Where the answers of a job go: a file of this machine, and from there into a store if asked."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from batcher.app.jobs.sources import digest
from batcher.core.own_folder import cache_home
from batcher.errors import ConfigError
from batcher.serving.jobs.journal import RESTART, SENT
from batcher.serving.jobs.output_files import OutputFiles
from batcher.serving.jobs.stored import StoredPlace, stored_place
from batcher.serving.repository.stores.address import is_store


class Target(NamedTuple):
    """An output.

    Attributes:
        path: of the output on this machine.
        place: where it is put when it is whole; None where it stays.
    """

    path: Path
    place: StoredPlace | None = None

    @property
    def title(self) -> str:
        """The output, for messages."""
        return self.path.name if self.place is None else self.place.address

    def check_free(self, files: OutputFiles) -> None:
        """Check that no output is there that no job has written. Raises ConfigError."""
        files.check_free()
        if self.place is None or files.journal.read() is not None:
            return
        try:
            found = self.place.file()
        except OSError as err:
            raise ConfigError(f"the output: {err}") from err
        if found is not None:
            raise ConfigError(
                f"{self.place.address}: expected no such file; got one that no job of this machine "
                f"has written: name another output, or {RESTART}"
            )

    def send(self, files: OutputFiles) -> None:
        """Put the whole output and its errors into the store, and remove them here.

        Does nothing where the output stays, or was put before. Raises ConfigError.
        """
        record = files.journal.read()
        assert record is not None, "a whole output has a journal"
        if self.place is None or record.stage == SENT:
            return
        store, name = self.place.store, self.place.name
        try:
            errors = f"{name}.errors.jsonl"
            if files.errors.exists():
                store.put(errors, files.errors)
            else:
                store.delete([errors])
            store.put(name, files.output)
        except OSError as err:
            raise ConfigError(f"{err}: the same command puts the output there again") from err
        files.journal.write(record._replace(stage=SENT))
        files.output.unlink(missing_ok=True)
        files.errors.unlink(missing_ok=True)


def target_at(place: str, work: Path | None) -> Target:
    """Return the output at `place`, a path or an address; `work` is the folder of what waits.

    Raises ConfigError: there is no such kind of store, or no folder for what waits.
    """
    if not is_store(place):
        return Target(Path(place).absolute())
    stored = stored_place(place, "the output")
    try:
        folder = (work or cache_home() / "batcher" / "jobs").absolute()
    except OSError as err:
        raise ConfigError(f"a folder for what waits for the store: {err}") from err
    return Target(folder / digest([stored.address]) / stored.name, stored)
