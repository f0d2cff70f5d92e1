"""`ModelServer`: names and versions to schedulers, and the lives of models. What an embedding program holds.

It needs a clock and a way back from threads, nothing else of a reactor, so it runs on any. It opens no port, sets nothing
that is process-wide and starts threads only for the models that it is given.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from mypy_extensions import mypyc_attr
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.config.model_file import ModelDefinition
from batcher.config.settings import ModelSettings, ServerSettings
from batcher.errors import BatcherError, ConfigError, Draining, ModelNotReady, UnknownModel
from batcher.hooks import HookedRequests
from batcher.metrics import ServerMetrics
from batcher.models.loading import CheckedModel, Progress, load_model
from batcher.request import NO_PARAMETERS, InferenceRequest, InferenceResponse, Parameters, checked_parameters
from batcher.scheduler import CallSoon
from batcher.served import ModelState, ServedModel, build_scheduler
from batcher.spec import Array, check_inputs
from batcher.workers.pool import CpuPool
from batcher.workers.protocol import CallFromThread
from batcher.workers.thread import InferenceThread, Load
from batcher.workers.waiters import Waiters

Result = TypeVar("Result")
_log = Logger()


@mypyc_attr(allow_interpreted_subclasses=True)
class ModelServer:
    """Holds any number of models; `infer` answers a request through the right one.

    `add` models, wait for its Deferreds, `infer`, and `stop` at the end. All methods: reactor thread.

    Attributes:
        metrics: where requests and batches are counted.
        seconds: the server's clock.
        generation: grows whenever a model comes, goes or changes its state; what was looked up before is then to be looked
            up again.
    """

    def __init__(
        self,
        clock: IReactorTime,
        call_from_thread: CallFromThread,
        settings: ServerSettings | None = None,
        metrics: ServerMetrics | None = None,
        progress: Callable[[str, str], None] = lambda title, text: None,
        call_soon: CallSoon | None = None,
    ) -> None:
        """Wire a server without models; nothing starts.

        Args:
            clock: the reactor, or a `Clock` in tests.
            call_from_thread: `reactor.callFromThread`, or under asyncio `loop.call_soon_threadsafe`, which is cheaper.
            settings: bounds of the CPU pool; built-in defaults without.
            metrics: where to count; an object of its own without.
            progress: told a model's title and what is being done with it.
            call_soon: under asyncio `loop.call_soon`, which is cheaper than a timer of no delay, the default.
        """
        settings = settings or ServerSettings()
        self.metrics = metrics or ServerMetrics()
        self._clock = clock
        self.seconds = clock.seconds
        self._call_from_thread = call_from_thread
        self._progress = progress
        self._call_soon = call_soon
        self._models: dict[str, dict[str, ServedModel]] = {}
        self._draining = False
        self._ended = Waiters()
        self._workers = 0
        self.generation = 0
        threads = settings.cpu_pool_threads or os.cpu_count() or 1
        self._pool = CpuPool(threads, settings.cpu_pool_tasks, settings.cpu_pool_bytes, call_from_thread, clock)
        self._hooked = HookedRequests(self._pool)

    def __iter__(self) -> Iterator[ServedModel]:
        """Iterate over every version of every model."""
        return (served for versions in self._models.values() for served in versions.values())

    def _changed(self) -> None:
        self.generation += 1

    @property
    def draining(self) -> bool:
        """Whether the server takes no more requests."""
        return self._draining

    def add(self, definition: ModelDefinition, settings: ModelSettings, load: Load | None = None) -> Deferred[None]:
        """Start to load a version of a model; fires when it is ready, fails with ModelLoadError if it cannot be.

        Args:
            definition: what it is.
            settings: how it is run.
            load: loads it on the inference thread; without, what `definition` says is loaded.

        Raises:
            ConfigError: that version is here already.
        """
        versions = self._models.setdefault(definition.spec.name, {})
        if definition.spec.version in versions:
            raise ConfigError(f"model {definition.spec.name!r}: version {definition.spec.version} is there twice")
        served = ServedModel(definition, settings)
        versions[definition.spec.version] = served
        self._changed()

        def load_defined(progress: Progress) -> CheckedModel:
            return load_model(definition, settings, progress)

        served.worker = InferenceThread(
            f"batcher-{served.title}", load or load_defined, lambda text: self._report(served, text), self._call_from_thread
        )
        metrics = self.metrics.model(served.spec.name, served.spec.version)
        served.scheduler = build_scheduler(served.settings, served.spec, served.worker, self._clock, metrics, self._call_soon)
        loaded = served.worker.start(served.scheduler.deliver)
        return loaded.addCallbacks(self._loaded, self._failed, callbackArgs=(served,), errbackArgs=(served,))

    def find(self, name: str, version: str = "") -> ServedModel:
        """Return the version of a model that answers a request; without `version` the newest that is ready.

        Raises:
            UnknownModel: there is no such model or version.
        """
        versions = self._models.get(name)
        if not versions:
            known = ", ".join(map(repr, self._models)) or "none"
            raise UnknownModel(f"model: expected one of {known}; got {name!r:.200}")
        if version:
            found = versions.get(version) or versions.get(version.lstrip("0") or "0")
            if found is None:
                raise UnknownModel(f"model {name!r}: expected version {' or '.join(versions)}; got {version!r:.200}")
            return found
        newest = sorted(versions.values(), key=lambda served: int(served.spec.version), reverse=True)
        return next((served for served in newest if served.state is ModelState.READY), newest[0])

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model that can answer, ascending."""
        ready = [served.spec.version for served in self._models.get(name, {}).values() if served.state is ModelState.READY]
        return sorted(ready, key=int)

    def only_model(self) -> str:
        """Return the name of the model that `/predict` means: the only one there is.

        Raises:
            UnknownModel: there are none or several.
        """
        if len(self._models) != 1:
            known = ", ".join(map(repr, self._models)) or "none"
            raise UnknownModel(f"/predict: expected a server with one model; this one has {known}: name one in the path")
        return next(iter(self._models))

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        version: str = "",
        parameters: Parameters = NO_PARAMETERS,
    ) -> Deferred[InferenceResponse]:
        """Answer one request of 1 or more rows.

        Args:
            model: the model's name.
            inputs: name to array of shape (rows, *row shape), in the dtypes of the model's specification.
            version: which version; empty takes the newest that is ready.
            parameters: deadline, priority and id.

        Returns:
            A Deferred of the response. It fails with UnknownModel, ModelNotReady, InvalidInput, TooLarge, QueueFull,
            Draining, DeadlineExceeded or ModelError. Cancelling it gives up the request.
        """
        try:
            return self.infer_on(self.ready_model(model, version), inputs, parameters)
        except BatcherError:
            return fail()

    def infer_on(
        self, served: ServedModel, inputs: Mapping[str, Array], parameters: Parameters = NO_PARAMETERS, exact: bool = False
    ) -> Deferred[InferenceResponse]:
        """Answer one request by `served`, which `ready_model` returned since `generation` last changed.

        Args:
            served: the version of a model.
            inputs: name to array of shape (rows, *row shape).
            parameters: deadline, priority and id.
            exact: whether whoever made `inputs` made them after the specification, so that they need no check.

        Raises:
            InvalidInput, TooLarge, QueueFull, Draining: as `infer` fails with.
        """
        spec = served.spec
        rows = len(inputs[spec.inputs[0].name]) if exact else check_inputs(spec, inputs)
        if parameters is not NO_PARAMETERS:
            parameters = checked_parameters(parameters, served.max_level)
        request = InferenceRequest(spec.name, spec.version, inputs, rows, parameters)
        if served.hooked is None:
            return served.scheduler.submit(request)
        deadline = parameters.deadline if parameters.deadline is not None else self.deadline(served)
        return self._hooked.answer(served.scheduler, served.hooked, request, deadline)

    def ready_model(self, name: str, version: str = "") -> ServedModel:
        """Return the version of a model that can answer now.

        Raises:
            UnknownModel: there is no such model or version.
            Draining: the server takes no more requests.
            ModelNotReady: it is still loading, or failed to load, or was stopped.
        """
        served = self.find(name, version)
        if self._draining:
            raise Draining("the server is being stopped and takes no more requests", retry_after=5)
        if served.state is not ModelState.READY:
            raise ModelNotReady(f"model {served.title} is not ready: {served.state.value}: {served.detail}", retry_after=5)
        return served

    def deadline(self, served: ServedModel, timeout: float | None = None) -> float:
        """Return when a request that arrives now is worthless, `timeout` seconds or the model's default from now."""
        return self._clock.seconds() + (served.settings.timeout_ms / 1e3 if timeout is None else timeout)

    def run_on_pool(self, nbytes: int, deadline: float, function: Callable[[], Result]) -> Deferred[Result]:
        """Run `function`, which holds on to `nbytes` bytes, on the CPU pool, at most until `deadline`.

        Raises:
            QueueFull: too many tasks or bytes are there already.
        """
        return self._pool.run(nbytes, deadline, function)

    def unready(self) -> dict[str, str]:
        """Return title and reason of every model that does not serve; empty when all do."""
        return {
            served.title: f"{served.state.value}: {served.detail}" for served in self if served.state is not ModelState.READY
        }

    def drain(self) -> Deferred[None]:
        """Take no more requests; fires when those that were taken are answered."""
        self._draining = True
        self._changed()
        drained = self._hooked.drain().addCallback(lambda _: DeferredList([served.scheduler.drain() for served in self]))
        return drained.addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        """Fail what is still here, end the workers; fires when they have ended, which a hung model never does."""
        self._draining = True
        self._changed()
        self._pool.stop()
        for served in self:
            if served.state is not ModelState.STOPPED:
                served.scheduler.fail_all(Draining("the server was stopped before the request was answered"))
                served.become(ModelState.STOPPED, "the server was stopped")
                self._workers += 1
                served.worker.quit().addCallback(self._worker_ended)
        ended = self._ended.wait()
        self._tell_ended()
        return ended

    def _worker_ended(self, _: object) -> None:
        self._workers -= 1
        self._tell_ended()

    def _tell_ended(self) -> None:
        if self._workers == 0:
            self._ended.release()

    def _loaded(self, checked: CheckedModel, served: ServedModel) -> None:
        if served.state is ModelState.LOADING:
            served.loaded(checked.model)
            self._changed()
            self._progress(served.title, "ready")

    def _failed(self, failure: Failure, served: ServedModel) -> Failure:
        if served.state is ModelState.LOADING:
            served.become(ModelState.FAILED, failure.getErrorMessage())
            self._progress(served.title, f"failed: {failure.getErrorMessage()}")
        return failure

    def _report(self, served: ServedModel, text: str) -> None:
        if served.state is ModelState.LOADING:
            served.detail = text
            self._progress(served.title, text)
