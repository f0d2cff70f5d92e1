"""`ModelServer`: names and versions to schedulers, and the lives of models.

What an embedding program holds.

It needs a clock and a way back from threads, nothing else of a reactor, so it runs on any. It opens
no port, sets nothing that is process-wide and starts threads only for the models that it is given.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from mypy_extensions import mypyc_attr
from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from batcher.batching.scheduler import CallSoon
from batcher.batching.worker import CallFromThread
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings
from batcher.core.request import (
    NO_PARAMETERS,
    InferenceRequest,
    InferenceResponse,
    Parameters,
    checked_parameters,
)
from batcher.core.spec import Array, check_inputs
from batcher.core.waiters import Waiters
from batcher.errors import BatcherError, ConfigError, Draining, ModelLoadError, ModelNotReady
from batcher.serving.metrics import ServerMetrics
from batcher.serving.model_version import ModelState, ModelVersion, build_scheduler
from batcher.serving.stages.charging import charged
from batcher.serving.stages.quotas import quotas_of
from batcher.serving.versions import VersionTable
from batcher.workers.instances import Instances
from batcher.workers.making import make_workers
from batcher.workers.pool import CpuPool
from batcher.workers.thread import Load

Result = TypeVar("Result")


@mypyc_attr(allow_interpreted_subclasses=True)
class ModelServer:
    """Holds any number of models; `infer` answers a request through the right one.

    `add` models, wait for its Deferreds, `infer`, and `stop` at the end. All methods: reactor
    thread.

    Attributes:
        metrics: where requests and batches are counted.
        clock: the only time there is.
        seconds: what `clock` says.
        quotas: limits the rows of each key; None limits nobody. May be exchanged at any time, for
            one with full buckets.
        drain_timeout: seconds that a model that is unloaded has for its last answers.
        draining: whether the server takes no more requests.
        generation: grows whenever a model comes, goes or changes its state; what was looked up
            before is then to be looked up again.
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
            call_from_thread: `reactor.callFromThread`, or under asyncio
                `loop.call_soon_threadsafe`, which is cheaper.
            settings: bounds of the CPU pool, and quotas; built-in defaults without.
            metrics: where to count; an object of its own without.
            progress: told a model's title and what is being done with it.
            call_soon: under asyncio `loop.call_soon`, which is cheaper than a timer of no delay,
                the default.
        """
        settings = settings or ServerSettings()
        self.metrics = metrics or ServerMetrics()
        self.clock = clock
        self.seconds = clock.seconds
        self.quotas = quotas_of(settings.quotas)
        self._call_from_thread = call_from_thread
        self._progress = progress
        self._call_soon = call_soon
        self._models = VersionTable()
        self._alive: set[ModelVersion] = set()
        self._watchers: list[Callable[[], None]] = []
        self.draining = False
        self.drain_timeout = settings.drain_timeout_s
        self._ended = Waiters()
        self.generation = 0
        threads = settings.cpu_pool_threads or os.cpu_count() or 1
        self._pool = CpuPool(
            threads, settings.cpu_pool_tasks, settings.cpu_pool_bytes, call_from_thread, clock
        )

    def __iter__(self) -> Iterator[ModelVersion]:
        """Iterate over every version of every model."""
        return iter(self._models)

    def _changed(self, served: ModelVersion | None = None, text: str = "") -> None:
        self.generation += 1
        if served is not None and not self.draining:
            self._progress(served.title, text)
        for watcher in self._watchers:
            watcher()

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever `generation` has grown."""
        self._watchers.append(changed)

    def add(
        self,
        definition: ModelDefinition,
        settings: ModelSettings,
        load: Load | None = None,
        required: bool = True,
    ) -> Deferred[None]:
        """Start to load a version of a model.

        Fires when it is ready, fails with ModelLoadError if it cannot be.

        Args:
            definition: what it is.
            settings: how it is run.
            load: loads it on the inference thread; without, what `definition` says is loaded.
            required: whether the server is not ready without it.

        Raises:
            ConfigError: that version is here already, and neither failed nor was unloaded.
        """
        earlier = self._models.get(definition.spec.name, definition.spec.version)
        if earlier is not None:
            required = required or earlier.required
            if earlier.state not in (ModelState.FAILED, ModelState.UNLOADED):
                raise ConfigError(
                    f"model {definition.spec.name!r}: version {definition.spec.version} is there "
                    "twice"
                )
            earlier.unload()
        served = self.make(definition, settings, load, required)
        self._put(served)
        return served.start()

    def replace(
        self, definition: ModelDefinition, settings: ModelSettings, load: Load | None = None
    ) -> Deferred[None]:
        """Load a version anew, and serve it in place of the one that is ready now.

        Fires and fails as `add` does.

        No request is lost: until the new one is ready, and if it cannot be loaded, the one that is
        here serves. If that was unloaded meanwhile, so is the new one.
        """
        served = self.make(definition, settings, load)
        earlier = self.find(served.spec.name, served.spec.version)

        def swap(_: None) -> None:
            if (
                self._models.get(served.spec.name, served.spec.version) is not earlier
                or not earlier.is_loaded
            ):
                raise ModelLoadError(
                    f"model {served.title}: it was unloaded or replaced while it was loaded anew"
                )
            self.adopt(served)

        def give_up(failure: Failure) -> Failure:
            served.unload()
            return failure

        return served.start().addCallback(swap).addErrback(give_up)

    def unload(self, served: ModelVersion) -> Deferred[None]:
        """Answer what `served` has taken, in `drain_timeout` at most, and let go of the model.

        Fires when that is done.
        """
        served.unload()
        if served.state is ModelState.UNLOADING:
            cut: Any = self.clock.callLater(self.drain_timeout, served.cut_short)
            served.settled().addCallback(lambda _: cut.cancel() if cut.active() else None)
        return served.settled()

    def adopt(self, served: ModelVersion) -> None:
        """Have `served`, which was made here and is ready, take requests.

        What it takes the place of is unloaded.
        """
        earlier = self._models.get(served.spec.name, served.spec.version)
        if earlier is not None:
            served.required = earlier.required
            self.unload(earlier)
        self._put(served)

    def _put(self, served: ModelVersion) -> None:
        self._models.put(served)
        self.metrics.model(served.spec.name, served.spec.version).load = served.scheduler
        self._changed()

    def forget(self, served: ModelVersion) -> Deferred[None]:
        """Unload `served` as `unload` does; from now on nobody finds it."""
        self._models.remove(served)
        self.metrics.model(served.spec.name, served.spec.version).load = None
        self._changed()
        return self.unload(served)

    def make(
        self,
        definition: ModelDefinition,
        settings: ModelSettings,
        load: Load | None = None,
        required: bool = True,
    ) -> ModelVersion:
        """Return a version of a model beside those that serve.

        `start` it, then `adopt` or `unload` it; `add` says the rest.
        """
        served = ModelVersion(
            definition, settings, self._pool, self._changed, self._worker_ended, required
        )
        workers = make_workers(
            definition, settings, load, served.report, self._call_from_thread, self.clock
        )
        served.workers = Instances(workers)
        metrics = self.metrics.model(served.spec.name, served.spec.version)
        served.scheduler = build_scheduler(
            settings, served.spec, workers, self.clock, metrics, self._call_soon
        )
        self._alive.add(served)
        return served

    def find(self, name: str, version: str = "") -> ModelVersion:
        """Return that version of a model; without `version` the newest that is ready.

        Raises UnknownModel.
        """
        return self._models.find(name, version)

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model that can answer, ascending."""
        return self._models.ready_versions(name)

    def only_model(self) -> str:
        """Return the name of the model that `/predict` means: the only one there is.

        Raises UnknownModel.
        """
        return self._models.only_name()

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
            inputs: name to array of shape (rows, *row shape), in the dtypes of the model's
                specification.
            version: which version; empty takes the newest that is ready.
            parameters: deadline, priority, id and key.

        Returns:
            A Deferred of the response. It fails with UnknownModel, ModelNotReady, InvalidInput,
            QuotaExceeded, TooLarge, QueueFull, Draining, DeadlineExceeded or ModelError. Cancelling
            it gives up the request.
        """
        try:
            return self.infer_on(self.ready_model(model, version), inputs, parameters)
        except BatcherError:
            return fail()

    def infer_on(
        self,
        served: ModelVersion,
        inputs: Mapping[str, Array],
        parameters: Parameters = NO_PARAMETERS,
        exact: bool = False,
    ) -> Deferred[InferenceResponse]:
        """Answer one request by `served`, which `ready_model` returned since `generation` last changed; `infer` says the rest.

        With `exact`, `inputs` were made after the specification and need no check. Raises what
        `infer` fails with.
        """
        spec = served.spec
        rows = len(inputs[spec.inputs[0].name]) if exact else check_inputs(spec, inputs)
        if parameters is not NO_PARAMETERS:
            parameters = checked_parameters(parameters, served.max_level)
        request = InferenceRequest(spec.name, spec.version, inputs, rows, parameters)
        if self.quotas is None:
            return self._answer(served, request)
        return charged(
            request, self.quotas, self.metrics, self.seconds(), partial(self._answer, served)
        )

    def _answer(
        self, served: ModelVersion, request: InferenceRequest
    ) -> Deferred[InferenceResponse]:
        if served.hooked is None:
            return served.scheduler.submit(request)
        asked = request.parameters.deadline
        return served.hooked.answer(request, self.deadline(served) if asked is None else asked)

    def ready_model(self, name: str, version: str = "") -> ModelVersion:
        """Return the version of a model that can answer now.

        Raises UnknownModel, Draining or ModelNotReady.
        """
        served = self.find(name, version)
        if self.draining:
            raise Draining("the server is being stopped and takes no more requests", retry_after=5)
        if not served.accepts:
            raise ModelNotReady(f"model {served.title} is not ready: {served.told}", retry_after=5)
        return served

    def deadline(self, served: ModelVersion, timeout: float | None = None) -> float:
        """Return when a request that arrives now is worthless, `timeout` seconds or the model's default from now."""
        return self.clock.seconds() + (served.settings.timeout if timeout is None else timeout)

    def run_on_pool(
        self, nbytes: int, deadline: float, function: Callable[[], Result]
    ) -> Deferred[Result]:
        """Run `function`, which holds on to `nbytes` bytes, on the CPU pool, at most until `deadline`.

        Raises:
            QueueFull: too many tasks or bytes are there already.
        """
        return self._pool.run(nbytes, deadline, function)

    def successor(self, served: ModelVersion) -> ModelVersion:
        """Return the version of a model that takes requests in place of `served`, which was found a while ago."""
        return self._models.successor(served)

    def unready(self) -> dict[str, str]:
        """Return title and reason of every model that should serve and does not.

        Empty when all do.
        """
        return {served.title: served.told for served in self if served.missed}

    def drain(self) -> Deferred[None]:
        """Take no more requests; fires when those that were taken are answered."""
        self.draining = True
        self._changed()
        return DeferredList([served.drain() for served in self._alive]).addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        """Fail what is still here, end the workers.

        Fires when they have ended, which a hung model never does.
        """
        self.draining = True
        self._changed()
        self._pool.stop()
        for served in list(self._alive):
            served.stop()
        return self._ended.wait() if self._alive else succeed(None)

    def _worker_ended(self, served: ModelVersion) -> None:
        self._alive.discard(served)
        if not self._alive:
            self._ended.release()
