"""Batches in OpenAI's form: jobs over files that clients have uploaded, and download.

A batch is a job of the board, so it runs, goes on after a kill, and is forgotten as any job is.
What is said of it follows from the job:

    job                                  status of the batch
    queued or running, model unknown     validating
    queued or running                    in_progress; finalizing while its output is made whole
    ... and a client has cancelled it    cancelling
    done                                 completed
    failed, cancelled                    failed, cancelled

A batch never expires: it takes what other requests leave over, however long that is. Its output and
its errors are files with ids of their own, which follow from that of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from twisted.internet.defer import Deferred, succeed

from batcher.core.error_text import brief
from batcher.errors import QueueFull, UnknownJob
from batcher.serving.jobs.board import JobBoard
from batcher.serving.jobs.entry import JobState, Wanted
from batcher.serving.jobs.held_files import UploadedFile
from batcher.serving.jobs.journal import FINISHING
from batcher.serving.jobs.uploads import END, ArrivingFile, Uploads

_STATUS = {"done": "completed", "failed": "failed", "cancelled": "cancelled"}
"""The status of a batch whose job has ended."""

Result = TypeVar("Result")

Shown = dict[str, Any]
"""What is said of a batch, a file or a job, as JSON has it."""


class AskedBatch(NamedTuple):
    """What a client asks for.

    Attributes:
        endpoint: the route of all requests.
        input_file_id: the file of the requests.
        metadata: texts of the client's own.
    """

    endpoint: str
    input_file_id: str
    metadata: dict[str, str] | None


class Content(NamedTuple):
    """A file that is to be sent.

    Attributes:
        path: where it is.
        nbytes: its size.
    """

    path: Path
    nbytes: int


class Batches:
    """Files and batches of clients. Reactor thread. Each method raises Unavailable at the start."""

    def __init__(self, board: JobBoard, uploads: Uploads, outputs: Path, most: int) -> None:
        """Run batches over `uploads` on `board`; outputs are in the folder `outputs`.

        At most `most` batches of a key have not ended.
        """
        self._board = board
        self._most = most
        self._uploads = uploads
        self._outputs = outputs

    def create(self, owner: str, asked: AskedBatch) -> Deferred[Shown]:
        """Begin a batch; fires with what is said of it. Raises UnknownJob, QueueFull."""
        self.sweep()
        self._uploads.find(asked.input_file_id, owner)
        going_on = [each for each in self._board.list(owner=owner) if each["state"] not in _STATUS]
        if len(going_on) >= self._most:
            raise QueueFull(
                f"{self._most} batches of this key (jobs.uploads.key_share) wait or run"
            )
        id = f"batch_{uuid4().hex}"
        source, output = self._uploads.path(asked.input_file_id), self._outputs / f"{id}{END}"
        batch = {"owner": owner, **asked._asdict()}
        wanted = Wanted("", "", str(source), str(output), batch=batch)
        return self._board.add(wanted, id).addCallback(_shown)

    def status(self, owner: str, id: str) -> Shown:
        """Return what is said of a batch. Raises UnknownJob."""
        return _shown(self._found(owner, id))

    def list(self, owner: str) -> list[Shown]:
        """Return what is said of all batches of `owner`, the newest first."""
        self._uploads.check_read()
        return [_shown(status) for status in self._board.list(owner=owner)]

    def cancel(self, owner: str, id: str) -> Deferred[Shown]:
        """End a batch, whose output is removed; fires once that is done. Raises UnknownJob."""
        self._found(owner, id)
        return self._board.cancel(id).addCallback(_shown)

    def arrive(self, owner: str, declared: int) -> ArrivingFile:
        """Return a place for a file of so many bytes. Raises TooLarge, QueueFull."""
        self.sweep()
        return self._uploads.arrive(owner, declared)

    def keep(self, arrived: ArrivingFile, filename: str, keep_s: float) -> UploadedFile:
        """Note a whole file, kept for `keep_s` seconds at most. Raises Unavailable. Any thread."""
        return self._uploads.keep(arrived, filename, keep_s)

    def run(self, nbytes: int, function: Callable[[], Result]) -> Deferred[Result]:
        """Run `function`, which reads or writes files and holds so many bytes."""
        return self._uploads.disk.run(nbytes, inf, function)

    def add(self, file: UploadedFile) -> Shown:
        """Let clients find a file that has come; return what is said of it."""
        self._uploads.add(file)
        return _uploaded(file)

    def files(self, owner: str, page: Callable[[Sequence[Shown]], Result]) -> Deferred[Result]:
        """Fire with what `page` makes of what is said of all files of `owner`, the newest first.

        Outputs are among them. Fails as `page`, which runs on a thread: there may be thousands.
        """
        self.sweep()
        uploaded, statuses = self._uploads.of(owner), self._board.list(owner=owner)
        outputs = [each for status in statuses for each in _outputs_of(status)]
        return self.run(0, lambda: page(_listed(uploaded, outputs)))

    def file(self, owner: str, id: str) -> Deferred[Shown]:
        """Fire with what is said of a file. Raises UnknownJob, or fails with it."""
        output = self._output(owner, id)
        if output is None:
            return succeed(_uploaded(self._uploads.find(id, owner)))
        return self.run(0, output.seen)

    def content(self, owner: str, id: str) -> Deferred[Content]:
        """Fire with where the content of a file is. Raises UnknownJob, or fails with it."""
        output = self._output(owner, id)
        path = self._uploads.path(id) if output is None else output.path
        return self.file(owner, id).addCallback(lambda file: Content(path, file["bytes"]))

    def remove(self, owner: str, id: str) -> Deferred[Any]:
        """Remove a file. Raises UnknownJob, InvalidInput; or fails with UnknownJob."""
        output = self._output(owner, id)
        if output is None:
            return self._uploads.remove(id, owner, self._in_use())
        return self.run(0, output.remove)

    def sweep(self) -> None:
        """Remove the batches and the files whose time is over."""
        self._uploads.check_read()
        self._board.sweep()
        self._uploads.sweep(self._in_use)

    def _in_use(self) -> set[str]:
        """Return the files that batches still read."""
        waiting = [each for each in self._board.list() if each["state"] not in _STATUS]
        return {each["batch"]["input_file_id"] for each in waiting if "batch" in each}

    def _found(self, owner: str, id: str) -> Shown:
        self._uploads.check_read()
        status = self._board.status(id)
        if status.get("batch", {}).get("owner") != owner:
            raise UnknownJob(f"expected the id of a batch; got {brief(id, 100)}")
        return status

    def _output(self, owner: str, id: str) -> _Output | None:
        """Return the output that the id of a file means; None for the id of an uploaded file."""
        batch, dash, _ = id.removeprefix("file-").rpartition("-")
        if not dash:
            return None
        try:
            status = self._found(owner, f"batch_{batch}")
        except UnknownJob as err:
            raise _unknown(id) from err
        for output in _outputs_of(status):
            if output.id == id:
                return output
        raise _unknown(id)


class _Output(NamedTuple):
    """A file that a batch has written.

    Attributes:
        id: its name in paths.
        path: where it is.
        created: when it was whole, in Unix seconds.
    """

    id: str
    path: Path
    created: float

    def seen(self) -> Shown:
        """Return what is said of the file. Raises UnknownJob: a client removed it. Any thread."""
        try:
            nbytes = self.path.stat().st_size
        except FileNotFoundError as err:
            raise _unknown(self.id) from err
        return _file(self.id, nbytes, self.created, self.path.name, "batch_output")

    def remove(self) -> None:
        """Remove the file. Raises UnknownJob. Any thread."""
        self.seen()
        self.path.unlink(missing_ok=True)


def _outputs_of(status: Shown) -> list[_Output]:
    """Return the files that a batch has written, whether they are still there or not."""
    if status["state"] != JobState.DONE.value:
        return []
    batch, path = status["id"].removeprefix("batch_"), Path(status["output"])
    errors = path.with_name(f"{path.name}.errors.jsonl")
    found = []
    if status["rows"] > status["failed_rows"]:
        found.append(_Output(f"file-{batch}-output", path, status["ended"]))
    if status["failed_rows"]:
        found.append(_Output(f"file-{batch}-errors", errors, status["ended"]))
    return found


def _listed(uploaded: Sequence[UploadedFile], outputs: Sequence[_Output]) -> list[Shown]:
    """Return what is said of files, and of those `outputs` that are there. Disk thread."""
    found = [_uploaded(file) for file in uploaded]
    for output in outputs:
        with suppress(UnknownJob):
            found.append(output.seen())
    return sorted(found, key=_age, reverse=True)


def _unknown(id: str) -> UnknownJob:
    return UnknownJob(f"expected the id of a file; got {brief(id, 100)}")


def _uploaded(file: UploadedFile) -> Shown:
    shown = _file(file.id, file.nbytes, file.created, file.filename, "batch")
    return shown | {"expires_at": int(file.expires)}


def _file(id: str, nbytes: int, created: float, filename: str, purpose: str) -> Shown:
    return {
        "id": id,
        "object": "file",
        "bytes": nbytes,
        "created_at": int(created),
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
    }


def _shown(status: Shown) -> Shown:
    """Return what clients read of the batch whose job has `status`."""
    batch = status["batch"]
    outputs = {output.id.rpartition("-")[2]: output.id for output in _outputs_of(status)}
    return {
        "id": status["id"],
        "object": "batch",
        "endpoint": batch["endpoint"],
        "model": status["model"] or None,
        "errors": _errors(status),
        "input_file_id": batch["input_file_id"],
        "completion_window": "24h",
        "status": _status_of(status),
        "output_file_id": outputs.get("output"),
        "error_file_id": outputs.get("errors"),
        **_times(status),
        "request_counts": {
            "total": batch.get("total", 0),
            "completed": status["rows"] - status["failed_rows"],
            "failed": status["failed_rows"],
        },
        "metadata": batch["metadata"],
    }


def _times(status: Shown) -> Shown:
    """Return when a batch reached each of its states, in Unix seconds."""
    batch, ended = status["batch"], {status["state"]: status["ended"]}
    return {
        "created_at": int(status["created"]),
        "in_progress_at": _whole(batch["began"]),
        "expires_at": None,
        "finalizing_at": None,
        "completed_at": _whole(ended.get("done")),
        "failed_at": _whole(ended.get("failed")),
        "expired_at": None,
        "cancelling_at": _whole(batch["cancelling"]),
        "cancelled_at": _whole(ended.get("cancelled")),
    }


def _status_of(status: Shown) -> str:
    batch = status["batch"]
    if status["state"] in _STATUS:
        return _STATUS[status["state"]]
    if batch["cancelling"] is not None:
        return "cancelling"
    if not status["model"]:
        return "validating"
    return "finalizing" if batch["stage"] == FINISHING else "in_progress"


def _errors(status: Shown) -> Shown | None:
    """Return why a batch failed; None if it did not."""
    if status["state"] != JobState.FAILED.value:
        return None
    other = {"code": "batch_failed", "line": None, "message": status["error"], "param": None}
    return {"object": "list", "data": status["batch"].get("faults") or [other]}


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _age(file: Shown) -> tuple[int, str]:
    return file["created_at"], file["id"]
