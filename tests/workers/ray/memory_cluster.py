"""The small part of Ray that the server uses, in memory: a test says when an actor runs a batch."""

from __future__ import annotations

import pickle
from concurrent.futures import Future
from queue import Queue
from typing import Any

from batcher.errors import ModelLoadError
from batcher.workers.ray.actor import ModelActor
from tests.support.crossing import PATIENCE


class ActorDied(Exception):
    """What Ray raises for a call of an actor that has ended."""


DEATH = """The actor died unexpectedly before finishing this task.
\tclass_name: ModelActor
\tactor_id: 5bbe2693
\tip: 192.0.2.2
The actor is dead because its worker process has died."""


def sent(value: Any) -> Any:
    """Return what arrives of `value`: other objects, arrays in memory that cannot be written to."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, 5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


class MemoryActor:
    """An actor that loads and runs hooks at once, and batches when it is told to.

    Attributes:
        waiting: the batches that it was sent and has not run.
        is_alive: whether it has not ended.
        has_node: whether the node is there over which it is called.
    """

    def __init__(self, *arguments: object) -> None:
        self._model = ModelActor(*sent(arguments))
        self.waiting: Queue[tuple[Future[Any], Any]] = Queue()
        self.is_alive = self.has_node = True
        self._calls: list[Future[Any]] = []
        self._hearing: Future[Any] = Future()

    def call(self, method: str, *arguments: object, group: str = "") -> Future[Any]:
        answer: Future[Any] = Future()
        self._calls.append(answer)
        arguments = sent(arguments)
        if not self.is_alive:
            answer.set_exception(ActorDied(DEATH))
        elif method == "hear":
            self._hearing = answer
            self._tell()
        elif method == "run":
            self.waiting.put((answer, arguments))
        else:
            answer.set_result(sent(getattr(self._model, method)(*arguments)))
            self._tell()
        return answer

    def is_lost(self) -> bool:
        return not self.has_node

    def kill(self) -> None:
        self.is_alive = False
        for answer in self._calls:
            if not answer.done():
                answer.set_exception(ActorDied(DEATH))

    def run(self, *, behind: int = 0) -> None:
        """Run the oldest batch, and answer it when `behind` more were run and answered."""
        answer, arguments = self.waiting.get(timeout=PATIENCE)
        result = sent(self._model.run(*arguments))
        for _ in range(behind):
            self.run()
        answer.set_result(result)

    def _tell(self) -> None:
        if not self._hearing.done() and not self._model._told.empty():
            self._hearing.set_result(sent(self._model.hear()))


class MemoryCluster:
    """Starts actors here.

    Attributes:
        actors: every actor, in the order in which they were started.
        is_there: whether the cluster can be reached.
    """

    def __init__(self) -> None:
        self.actors: list[MemoryActor] = []
        self.is_there = True

    def start(self, *arguments: object) -> MemoryActor:
        if not self.is_there:
            raise ModelLoadError("ray.address: expected a cluster")
        self.actors.append(MemoryActor(*arguments))
        return self.actors[-1]
