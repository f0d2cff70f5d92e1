"""The files that a job writes, beside each other in one folder.

    answers.jsonl.journal            how far the job is; stays, and says that the output is whole
    answers.jsonl.part               the output while rows are left, renamed at the end
    answers.jsonl.errors.jsonl.part  a line for each row without an answer, renamed at the end
    answers.jsonl                    the output, there only when it is whole
    answers.jsonl.errors.jsonl       the errors, there only if there are any

An output of several parts has them as `.part-NAME`. A job holds a lock on its file of errors, so no
two jobs write the same output.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from batcher.core.portions import Assemble
from batcher.errors import ConfigError
from batcher.serving.jobs.journal import (
    DONE,
    RESTART,
    Journal,
    Record,
    open_own,
    sync_folder,
)


class OutputFiles:
    """The files of one output. Any thread, one at a time.

    Attributes:
        output: the output.
        errors: its file of errors.
        journal: its journal.
        parts: the parts of the output while rows are left.
    """

    def __init__(self, output: Path, parts: Sequence[str]) -> None:
        """Name the files; nothing is touched. An output of one part has a `parts` of one name."""
        self.output = output
        self.errors = output.with_name(f"{output.name}.errors.jsonl")
        self.journal = Journal(output.with_name(f"{output.name}.journal"))
        names = [f"-{part}" for part in parts] if len(parts) > 1 else [""]
        self.parts = [output.with_name(f"{output.name}.part{name}") for name in names]
        self._whole = output.with_name(f"{output.name}.whole")
        self._errors_part = self.errors.with_name(f"{self.errors.name}.part")
        self._open = ExitStack()
        self._files: list[BinaryIO] = []

    def check_free(self) -> None:
        """Check that no output is there that a job has not written. Raises ConfigError."""
        if self.journal.read() is None and self.output.exists():
            raise ConfigError(
                f"{self.output}: expected no such file; got one that no job has written: name "
                f"another output, or {RESTART}"
            )

    def remove(self) -> None:
        """Remove everything, so that a job begins anew."""
        self._lock()
        self.journal.remove()
        for path in (*self.parts, self._errors_part, self._whole, self.output, self.errors):
            path.unlink(missing_ok=True)
        self.close()

    def open(self, lengths: Sequence[int], errors_length: int) -> None:
        """Open the files to append to, cut to what the journal says. Raises ConfigError."""
        errors = self._lock()
        paths, expected = (*self.parts, self._errors_part), (*lengths, errors_length)
        self._files = []
        for path, length in zip(paths, expected, strict=True):
            file = errors if path is self._errors_part else open_own(path, "ab")
            self._files.append(self._open.enter_context(file))
            if os.fstat(file.fileno()).st_size < length:
                raise ConfigError(f"{path}: expected at least {length} bytes: {RESTART}")
            os.ftruncate(file.fileno(), length)
            file.seek(length)

    def _lock(self) -> BinaryIO:
        """Return the file of errors, which nobody else has open now."""
        try:
            self._errors_part.parent.mkdir(parents=True, exist_ok=True)
            while True:
                file = open_own(self._errors_part, "ab")
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another job may have renamed it meanwhile: then it is the lock of nothing.
                with suppress(FileNotFoundError):
                    if self._errors_part.stat().st_ino == os.fstat(file.fileno()).st_ino:
                        self._open.enter_context(file)
                        return file
                file.close()
        except BlockingIOError as err:
            raise ConfigError(f"{self.output}: another job writes this output now") from err
        except OSError as err:
            raise ConfigError(
                f"{self.output}: expected an output that can be written: {err}"
            ) from err

    def append(self, parts: Sequence[bytes], errors: bytes) -> None:
        """Append to each part and to the errors."""
        for file, content in zip(self._files, (*parts, errors), strict=True):
            file.write(content)

    def sync(self) -> tuple[list[int], int]:
        """Have the disk hold all that was appended; return the lengths of the parts and errors."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        *lengths, errors = [file.tell() for file in self._files]
        return lengths, errors

    def close(self) -> None:
        """Let go of the files and of the lock."""
        # On a full disk the rest cannot be written: nothing of it is noted, so it is run again.
        with suppress(OSError):
            self._open.close()
        self._open = ExitStack()

    def finish(self, assemble: Assemble | None) -> None:
        """Make the output of its parts, at the end or again after a kill; the journal says so."""
        if assemble is not None and all(path.exists() for path in self.parts):
            self._assemble(assemble)
        elif assemble is None and self.parts[0].exists():
            self.parts[0].replace(self.output)
        if self._errors_part.exists():
            if self._errors_part.stat().st_size:
                self._errors_part.replace(self.errors)
            else:
                self._errors_part.unlink()
        # Renamed before parts are removed: a missing part means that the output is whole.
        sync_folder(self.output.parent)
        for path in self.parts:
            path.unlink(missing_ok=True)
        record = self.journal.read()
        assert record is not None, "a job has a journal"
        self.journal.write(record._replace(stage=DONE))

    def finish_again(self, assemble: Assemble | None) -> Record:
        """Finish what a kill has left; return what the journal says then. Raises ConfigError."""
        self._lock()
        self.finish(assemble)
        self.close()
        record = self.journal.read()
        assert record is not None, "a job has a journal"
        return record

    def _assemble(self, assemble: Assemble) -> None:
        with ExitStack() as stack:
            parts = [stack.enter_context(path.open("rb")) for path in self.parts]
            file = stack.enter_context(open_own(self._whole, "w+b"))
            assemble(parts, file)
            file.flush()
            os.fsync(file.fileno())
        self._whole.replace(self.output)
