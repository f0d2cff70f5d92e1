"""The batches on their way to one child and back.

A batch passes through these states, always in the order in which the worker was handed them:

| state | where | next |
|---|---|---|
| waiting | in this process | sent, while fewer than `depth` batches are sent or answered |
| sent | its inputs in a slot | answered, by the child or because the slot cannot hold its inputs |
| answered | its outcome is known | delivered, when every batch before is |

With a `depth` of 2 the next batch is put together while the child computes: a child that is done
finds its next batch in a slot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from time import perf_counter

from batcher.batching.batch import Batch
from batcher.batching.worker import Outcome
from batcher.core.device_work import DeviceWork
from batcher.core.spec import Array
from batcher.errors import ModelContractError
from batcher.models.device_errors import device_error
from batcher.workers.process.described_error import rebuild_error
from batcher.workers.process.messages import BatchDone, BatchFailed, RunBatch
from batcher.workers.shared_memory.packing import Packer
from batcher.workers.shared_memory.ring import Ring
from batcher.workers.shared_memory.slots import Slot


class BatchInTransit:
    """A batch on its way.

    Attributes:
        batch: the batch.
        handed_at: when the worker was handed the batch; all times are seconds of `perf_counter`.
        started: when collating began.
        collated: when its inputs lay in the slot.
        number: number by which the answer of the child is known.
        slot: memory that its inputs lie in.
        outcome: what became of it, None until that is known.
    """

    slot: Slot
    number = 0
    started = 0.0
    collated = 0.0
    outcome: Outcome | None = None

    def __init__(self, batch: Batch) -> None:
        """Begin the way of `batch`, which the worker is handed now. Reactor thread."""
        self.batch = batch
        self.handed_at = perf_counter()


def timed(task: BatchInTransit, free_at: float, answered: float, outcome: Outcome) -> Outcome:
    """Return `outcome` with the times of `task`, which was `answered` by a child.

    The time of a batch counts from when the child was free for it, at `free_at`. Before that the
    child was busy with another batch, though this one was put together. Child thread.
    """
    started, ended = max(task.started, free_at), perf_counter()
    return outcome._replace(
        waited=started - task.handed_at,
        compute=ended - started,
        collating=max(task.collated - started, 0.0),
        splitting=ended - answered,
    )


class Transit:
    """The batches of one child that were not delivered.

    Answers must come in the order of the batches: an answer that went to another batch would go to
    other clients.
    """

    _ring: Ring
    _send: Callable[[object], bool]

    def __init__(
        self,
        depth: int,
        note_sent: Callable[[], object],
        deliver: Callable[[Batch, Outcome], object],
    ) -> None:
        """Carry no batch yet.

        Args:
            depth: batches that may be sent and not delivered.
            note_sent: called after each batch that was sent, or could not be put together.
            deliver: called with each batch and its outcome, in order.

        Any thread.
        """
        self._depth = depth
        self._note_sent = note_sent
        self._deliver = deliver
        self._waiting: deque[BatchInTransit] = deque()
        self._sent: deque[BatchInTransit] = deque()
        self._numbers = count(1)
        self._answered_at = 0.0

    def begin(self, slots: Sequence[Slot], send: Callable[[object], bool]) -> None:
        """Carry batches in `slots`, the memory that is shared with the child.

        `send` sends a message, and returns whether the child was there to take it. Child thread.
        """
        self._ring = Ring(slots)
        self._send = send

    @property
    def is_empty(self) -> bool:
        """Whether every batch was delivered. Child thread."""
        return not self._waiting and not self._sent

    def unanswered(self) -> int:
        """Return how many of the batches sent have no outcome yet. Child thread."""
        return sum(task.outcome is None for task in self._sent)

    def add(self, task: BatchInTransit) -> None:
        """Have `task` wait behind the others. Child thread."""
        self._waiting.append(task)

    def feed(self) -> None:
        """Send as many batches as the child may have. Child thread."""
        while self._waiting and len(self._sent) < self._depth:
            task = self._waiting.popleft()
            message = self._collated(task)
            if message is not None and not self._send(message):
                self._waiting.clear()  # the child has ended, and has begun none of these
                return
            self._sent.append(task)
            self._note_sent()
        self._deliver_answered()

    def take_answer(self, answer: BatchDone | BatchFailed) -> str:
        """Take the answer to the oldest batch sent; return what is wrong with it, in words.

        Child thread.
        """
        task = next((task for task in self._sent if task.outcome is None), None)
        if task is None or task.number != answer.number:
            expected = task.number if task else "one it was given"
            return f"it answered out of turn: batch {answer.number}, not {expected}"
        task.outcome = self._outcome(task, answer)
        self._deliver_answered()
        return ""

    def _collated(self, task: BatchInTransit) -> RunBatch | None:
        """Put the inputs of a batch into a slot; None if that fails, and its outcome says why.

        Child thread.
        """
        task.started = perf_counter()
        slot, task.slot = self._ring.take()
        packer = Packer(task.slot)
        try:
            table = packer.table(task.batch.collate(packer.allocate))
        except Exception as err:  # no memory, or objects that cannot cross
            task.slot.busy = False  # the child never hears of it
            waited, compute = task.started - task.handed_at, perf_counter() - task.started
            task.outcome = Outcome([], device_error(err), waited, compute)
            return None
        task.collated = perf_counter()
        task.number = next(self._numbers)
        return RunBatch(task.number, slot, table, packer.end, task.batch.rows)

    def _outcome(self, task: BatchInTransit, answer: BatchDone | BatchFailed) -> Outcome:
        """Return what became of a batch. Child thread."""
        answered, free_at = perf_counter(), self._answered_at
        self._answered_at = answered
        error: BaseException | None = None
        results: list[Mapping[str, Array]] = []
        failed: dict[int, BaseException] = {}
        work: DeviceWork | None = None
        if isinstance(answer, BatchFailed):
            task.slot.busy = False
            error = rebuild_error(answer.error)
        else:
            work = answer.work
            try:
                results, failed = self._results(task, answer)
            except (MemoryError, ModelContractError) as err:
                task.slot.busy, error = False, device_error(err)
        outcome = Outcome(results, error, 0.0, 0.0, failed=failed, work=work)
        return timed(task, free_at, answered, outcome)

    def _results(
        self, task: BatchInTransit, answer: BatchDone
    ) -> tuple[list[Mapping[str, Array]], dict[int, BaseException]]:
        """Return the rows of each part, and why single rows failed. Child thread."""
        # The child may have made the slot larger than this process has mapped.
        task.slot.reserve(answer.end)
        results = task.batch.split(self._ring.read(task.slot, answer.table))
        return results, {row: rebuild_error(error) for row, error in answer.failed.items()}

    def _deliver_answered(self) -> None:
        """Deliver every batch before the first without an outcome. Child thread."""
        while self._sent and (outcome := self._sent[0].outcome) is not None:
            self._deliver(self._sent.popleft().batch, outcome)
