"""The model on its node: what an actor of Ray runs.

The class knows nothing of Ray, which makes an actor of it (`cluster.py`). An actor is a process of
its own, with the same version of this package on its path. `messages.py` says which call runs on
which thread.
"""

from __future__ import annotations

from platform import node
from queue import SimpleQueue

from batcher import __version__
from batcher.batching.batch import Allocate
from batcher.core.spec import Array
from batcher.errors import DeviceLost, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.device_errors import device_error
from batcher.workers.process.child_load import load_and_tell, load_done
from batcher.workers.process.described_error import DescribedError, describe_error
from batcher.workers.process.hook_server import run_hook
from batcher.workers.process.messages import HookDone, LoadFailed, Prepare, RunHook
from batcher.workers.ray.messages import RowsDone
from batcher.workers.ray.same_files import Content, check_same


class ModelActor:
    """A model, from its load to its last batch.

    Once its device is lost no batch begins any more, and the server ends the actor.
    """

    _model: CheckedModel
    _lost: DescribedError | None = None

    def __init__(
        self, title: str, version: str, prepare: Prepare, files: dict[str, Content]
    ) -> None:
        """Remember what to load; nothing is read yet.

        Args:
            title: the model as error texts name it, `model 'm' version 1`.
            version: version of this package that the server has.
            prepare: what to load, and how it is run.
            files: what the model's files hold where the server is.

        Inference thread.
        """
        self._title = title
        self._version = version
        self._prepare = prepare
        self._files = files
        self._told: SimpleQueue[object] = SimpleQueue()

    def __repr__(self) -> str:
        """Return what Ray puts before each line that the model prints. Any thread."""
        return self._title

    def hear(self) -> list[object]:
        """Return what was told since the last call, and wait until there is something.

        Thread of the group `hear`.
        """
        told = [self._told.get()]
        while not self._told.empty():
            told.append(self._told.get())
        return told

    def load(self) -> None:
        """Load the model, and tell how that goes. Inference thread."""
        try:
            self._check_node()
        except ModelLoadError as err:
            self._told.put(LoadFailed(f"{self._title}: {err}", ""))
            return
        model = load_and_tell(self._prepare, self._told.put)
        if model is not None:
            model.copies_outputs = False  # they are written down before the model runs again
            self._model = model
            self._told.put(load_done(model))

    def run(self, inputs: dict[str, Array], rows: int) -> RowsDone | DescribedError:
        """Run one batch. Inference thread."""
        if self._lost is not None:
            return self._lost
        try:
            outputs, failed = self._model.predict(
                lambda allocate: _copied_into(inputs, allocate), rows
            )
            described = {row: describe_error(error) for row, error in failed.items()}
            return RowsDone(dict(outputs), described, self._model.work_done())
        except BaseException as err:  # a model that calls sys.exit() must not end the actor either
            error = device_error(err)
            answer = describe_error(error)
            if isinstance(error, DeviceLost):
                self._lost = answer
            return answer

    def run_hook(self, task: RunHook) -> HookDone | DescribedError:
        """Run one hook for one request. Thread of the group `hooks`."""
        return run_hook(self._model, self._prepare.settings.finite_outputs, task)

    def _check_node(self) -> None:
        """Raise ModelLoadError unless the node has what the server has. Inference thread."""
        if self._version != __version__:
            raise ModelLoadError(
                f"expected version {self._version} of the server's package on node {node()}; got "
                f"{__version__}"
            )
        check_same(self._files, node())


def _copied_into(inputs: dict[str, Array], allocate: Allocate) -> dict[str, Array]:
    """Return the inputs in buffers of the model: what Ray hands over cannot be written to.

    Inference thread.
    """
    buffers = {}
    for name, array in inputs.items():
        buffers[name] = allocate(name, array.shape, array.dtype)
        buffers[name][...] = array
    return buffers
