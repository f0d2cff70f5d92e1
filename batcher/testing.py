"""Models under test: a model's folder, loaded into a test, with the server's own batching.

    from batcher.testing import batcher_model  # a fixture of pytest

    def test_good_is_good(batcher_model):
        model = batcher_model("models/sentiment")
        assert model.predict({"text": "good"})["label"] == [b"positive"]

Everything between the bytes of a request and its answer is the server's: formats, hooks, queue,
batches, checks of the outputs. There are no sockets and no inference thread. A batch runs on the
test's own thread, when the test says so, so that a test decides which requests share a batch:

    first, second = model.submit({"text": "good"}), model.submit({"text": "bad"})
    assert model.step() == 2  # rows of the one batch that has run

Time stands still, and passes by `advance` alone. Hooks run on threads of the CPU pool, as always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from batcher.batching.worker import Worker
from batcher.codecs.content import Content
from batcher.codecs.format_table import decode_body
from batcher.codecs.negotiation import media_type, request_format
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.reading import Source, validate
from batcher.config.settings import ServerSettings
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec
from batcher.errors import BatcherError, ModelContractError, ModelError
from batcher.models.loading import load_model
from batcher.models.sample import inputs_of_values
from batcher.serving.assembly import Assembly
from batcher.serving.metrics import ServerMetrics
from batcher.serving.model_lifecycle import ModelLifecycle
from batcher.serving.repository.folders import define, find_versions
from batcher.serving.stages.stage import Stage
from batcher.workers.load_alone import load_alone
from batcher.workers.load_turns import LoadTurns
from batcher.workers.memory import MemoryWorker
from batcher.workers.pools import make_pools

HOOK_PATIENCE_S = 60.0
"""Seconds that a hook has on its thread: a test that waits longer waits for a hook that hangs."""


class ModelInProcess:
    """A model that a test steps through. One thread.

    Attributes:
        spec: name, version and tensors of the model.
        batches: rows of each batch that has run, the last one at the end; warm-up not counted.
        clock: the model's time, which stands still.
    """

    def __init__(self, folder: str | Path, **settings: Any) -> None:
        """Load the newest version in `folder`, of a model or of a version, and warm it up.

        `folder` may also be a single file, as for `batcher serve`. The device is the CPU, unless
        `settings`, those of the model in `config.yaml`, say otherwise.

        Raises:
            ConfigError: there is no model in the folder, or a setting is wrong.
            ModelLoadError: the model cannot be loaded.
        """
        __tracebackhide__ = True
        self.clock = Clock()
        self.batches: list[int] = []
        self._calls: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()
        self._home = Path(folder)
        try:
            self._load(settings)
        except BatcherError as err:
            raise own_part(err, self._home) from err.__cause__

    def _load(self, settings: Mapping[str, Any]) -> None:
        source = Source({"device": "cpu", **settings}, {(): "batcher_model"})
        own = validate(ModelSettings, source)
        found = find_versions(self._home, ServerSettings(), Path.cwd())
        newest = max(found, key=lambda each: int(each.version))
        # Links are followed: the code of a model knows its file's own path.
        self._home = newest.folder.resolve()
        definition = define(newest, own.trusted)
        self.spec: ModelSpec = definition.spec
        self._pools = make_pools(ServerSettings(), self._call_later, self.clock)
        parts = _MemoryAssembly(self.clock, self._call_later, self._pools)
        self._lifecycle = ModelLifecycle(parts, lambda title, text: None, 30.0)
        self._version = self._lifecycle.make(definition, own)
        self._lifecycle.adopt(self._version)
        self._start()

    def predict(self, values: Mapping[str, Any]) -> Mapping[str, Array]:
        """Return the outputs of one request, name to array.

        `values` are arrays, or lists and texts as in the `inputs` of a JSON request. Raises the
        error that a client would get.
        """
        __tracebackhide__ = True
        answer = self.submit(values)
        while not answer.is_there and self.step():
            pass
        return answer.outputs

    def post(self, body: bytes, content_type: str) -> Mapping[str, Array]:
        """Return the outputs of a request of `/predict` with this body and `Content-Type`."""
        __tracebackhide__ = True
        name, parameters = media_type(content_type)
        content = Content(body, name, parameters)
        entry = request_format(content_type, self.spec)
        try:
            inputs = decode_body(entry, content, self.spec)
        except BatcherError as err:
            raise own_part(err, self._home) from err.__cause__
        return self.predict(inputs)

    def submit(self, values: Mapping[str, Any], timeout_s: float | None = None) -> PendingAnswer:
        """Queue a request behind `preprocess`; no batch runs. Raises what refuses it at once."""
        __tracebackhide__ = True
        try:
            inputs = inputs_of_values(values, self.spec)
        except BatcherError as err:
            raise own_part(err, self._home) from err.__cause__
        deadline = self.clock.seconds() + timeout_s if timeout_s is not None else None
        before = self._version.scheduler.pending
        sent = self._version.infer(inputs, Parameters(deadline=deadline))
        answer = PendingAnswer(sent, self._take_calls, self._home)
        self._take_calls(lambda: answer.is_there or self._version.scheduler.pending > before)
        return answer

    @property
    def sample(self) -> Mapping[str, Array] | None:
        """The first row of the model's sample, which a deep check sends; None without a sample."""
        return self._version.sample

    def step(self) -> int:
        """Run the next batch, and return its rows; 0 if no request waits for one."""
        self.clock.advance(0)
        (worker,) = self._version.workers
        assert isinstance(worker, MemoryWorker)
        if not worker.batches:
            return 0
        self.batches.append(worker.perform().rows)
        return self.batches[-1]

    def advance(self, seconds: float) -> None:
        """Let time pass: deadlines end, and delays."""
        self.clock.advance(seconds)

    def close(self) -> None:
        """Let go of the model."""
        self._lifecycle.stop()
        self._pools.stop()

    def _call_later(self, function: Callable[..., object], *arguments: Any) -> None:
        self._calls.put((function, arguments))

    def _take_calls(self, until: Callable[[], bool]) -> None:
        """Make the calls that come from threads of hooks, until something is true."""
        while not until():
            try:
                function, arguments = self._calls.get(timeout=HOOK_PATIENCE_S)
            except Empty:
                raise TimeoutError(
                    f"expected the answer of a hook within {HOOK_PATIENCE_S:g} s; got none. Does "
                    "the request wait for a batch, which `step` runs?"
                ) from None
            function(*arguments)

    def _start(self) -> None:
        """Load the model; where that fails, let go of it and raise why."""
        failures: list[Failure] = []
        self._version.start().addErrback(failures.append)
        if failures:
            self.close()
            failures[0].raiseException()


class PendingAnswer:
    """The answer to a request that was submitted."""

    def __init__(
        self,
        sent: Deferred[InferenceResponse],
        take: Callable[[Callable[[], bool]], None],
        home: Path,
    ) -> None:
        """Wait for `sent`; `take` makes calls until something is true. The model is in `home`."""
        self._home = home
        self._result: InferenceResponse | Failure | None = None
        self._sent = sent
        self._take = take
        sent.addBoth(self._keep)

    @property
    def is_there(self) -> bool:
        """Whether the answer, or an error, is there."""
        return self._result is not None

    @property
    def outputs(self) -> Mapping[str, Array]:
        """The outputs, name to array, behind `postprocess`; raises the error of the request."""
        __tracebackhide__ = True
        self._take(lambda: self.is_there)
        result = self._result
        if isinstance(result, Failure):
            error = result.value
            assert error is not None
            if isinstance(error, ModelError) and error.place:
                error.add_note(f"raised in {error.place}")
            raise own_part(error, self._home) from error.__cause__
        assert isinstance(result, InferenceResponse)
        return result.outputs

    def cancel(self) -> None:
        """Give the request up, as a client does that leaves."""
        self._sent.cancel()

    def _keep(self, result: InferenceResponse | Failure) -> None:
        self._result = result


def own_part(error: BaseException, home: Path) -> BaseException:
    """Return `error` without the server's own lines, with those of the model in `home`.

    The cause of the error is the innermost one that the model's code has raised, from the first
    line of that code on. So what pytest shows of a broken model is the model.
    """
    cause: BaseException | None = None
    link: BaseException | None = error
    seen: set[int] = set()  # a chain of causes may be a circle
    is_of_contract = False
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        is_of_contract |= isinstance(link, ModelContractError)
        lines = link.__traceback__
        while lines is not None and not _is_in(lines.tb_frame.f_code.co_filename, home):
            lines = lines.tb_next
        if lines is not None:
            cause = link.with_traceback(lines)
        link = link.__cause__
    if is_of_contract and (home / "model.yaml").is_file():
        error.add_note(f"what is expected stands in {home / 'model.yaml'}")
    error.__cause__ = cause if cause is not error else None
    return error.with_traceback(None)


def _is_in(file: str, home: Path) -> bool:
    return Path(file).is_relative_to(home)


class _MemoryAssembly(Assembly):
    """Makes a worker without a thread."""

    def __init__(self, clock: Clock, call_from_thread: Any, pools: Any) -> None:
        super().__init__(clock, call_from_thread, None, pools, ServerMetrics(), LoadTurns(1))
        self._later = call_from_thread

    def workers(
        self, definition: ModelDefinition, settings: ModelSettings, load: Any, report: Any
    ) -> tuple[list[Worker], Sequence[Stage]]:
        """Load the model now, and return the one worker that runs it."""
        title = f"model {definition.spec.name!r} version {definition.spec.version}"
        load = lambda: load_model(definition, settings, report)  # noqa: E731
        checked = load_alone(self, title, load, self._later)
        return [MemoryWorker(checked, self.clock)], ()


def batcher_model() -> Iterator[Callable[..., ModelInProcess]]:
    """Yield a function that loads the model in a folder; a fixture of pytest.

    The arguments are those of ModelInProcess. Models are let go of at the end of the test.
    """
    with ExitStack() as opened:

        def load(folder: str | Path, **settings: Any) -> ModelInProcess:
            __tracebackhide__ = True
            model = ModelInProcess(folder, **settings)
            opened.callback(model.close)
            return model

        yield load


try:
    import pytest
except ModuleNotFoundError:  # without pytest, the class is of use
    pass
else:
    batcher_model = pytest.fixture(batcher_model)
