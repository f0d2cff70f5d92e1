"""A job in a process of its own, which kills itself at its n-th step: `killed_job.py FOLDER N`.

A step is anything that a disk may keep half of: a write, a sync, a rename, a removal. The process
is killed right before the step or right behind it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.codecs.row_files.opening import error_line_of, reader_of, writer_of
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array
from batcher.errors import ModelError
from batcher.serving.jobs import job
from batcher.serving.jobs.answering import Answering
from batcher.serving.jobs.journal import DONE, FINISHING, RUNNING, Record
from batcher.serving.jobs.output_files import OutputFiles
from batcher.serving.jobs.writing import JobOutput
from batcher.workers.pool import CpuPool
from tests.support.models import model_spec, tensor

SPEC = model_spec((tensor("x", "FP32", (2,)),), (tensor("y", "FP32", (2,)),))
ROWS = 4


class Steps:
    """Counts steps, and kills the process at one of them."""

    def __init__(self, last: int) -> None:
        self._left = last

    def at(self, owner: Any, name: str) -> None:
        """Count each call of a function of `owner` as two steps: before it and behind it."""
        function: Callable[..., Any] = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self._step()
            result = function(*arguments, **named)
            self._step()
            return result

        setattr(owner, name, counted)

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def infer(inputs: Mapping[str, Array]) -> Deferred[InferenceResponse]:
    """Answer later, in another order than that of the requests; fail on negative numbers."""
    answered: Deferred[InferenceResponse] = Deferred()
    x = inputs["x"]
    response = InferenceResponse("m", "1", {"y": x * 2}, 0.0, 0.0, len(x))
    fails = bool((x < 0).any())
    result = Failure(ModelError("negative")) if fails else response
    end = answered.errback if fails else answered.callback
    reactor.callLater(float(x[0, 0]) % 3 / 1000, end, result)
    return answered


def main(folder: Path, steps: int, name: str) -> None:
    """Run the job of `folder`, or go on with it."""
    job.CHECKPOINT_S = 0.0  # a note in the journal after each write
    counter = Steps(steps)
    for owner, function in ((os, "fsync"), (os, "ftruncate"), (Path, "replace"), (Path, "unlink")):
        counter.at(owner, function)
    counter.at(OutputFiles, "append")
    files = OutputFiles(folder / name, writer_of(name, SPEC, {}).parts)
    reader = reader_of("in.jsonl", (folder / "in.jsonl").open("rb"), SPEC, "", 0)
    record = files.journal.read() or Record({}, RUNNING, reader.begin, 0, 0, 0.0, [0], 0, {})
    writer = writer_of(name, SPEC, record.writer)
    if record.stage == FINISHING:
        record = files.finish_again(writer.assemble)
    if record.stage == DONE:
        return
    output = JobOutput(files, writer, record, error_line_of(name, reader.place))
    output.open()
    pools = [CpuPool(1, 4, 1, reactor.callFromThread, reactor) for _ in range(2)]
    made = job.Job(
        reader, output, Answering(infer, reactor), job.Shape(ROWS, 3), (pools[0], pools[1]), reactor
    )
    reactor.callWhenRunning(lambda: made.run().addBoth(partial(ended)))
    reactor.run()


def ended(result: object) -> None:
    """End the process; it has failed if the job has."""
    if isinstance(result, Failure):
        result.printTraceback(sys.stderr)
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
