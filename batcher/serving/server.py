"""`ModelServer`: what an embedding program holds. It finds the model that answers a request.

A server needs a clock and a way back from threads, nothing else of a reactor, so it runs on any. It
opens no port, sets nothing that is process-wide, and starts threads only for the models that it is
given. The lives of models stand in `model_lifecycle.py`; a server adds names, readiness and quotas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from random import Random

from mypy_extensions import mypyc_attr
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

from batcher.batching.scheduler import CallSoon
from batcher.batching.worker import CallFromThread
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings
from batcher.core.epoch import Epoch
from batcher.core.request import NO_PARAMETERS, InferenceResponse, Parameters
from batcher.core.spec import Array
from batcher.errors import BatcherError, Draining, ModelNotReady, UnknownModel
from batcher.serving.assembly import Assembly
from batcher.serving.metrics import ServerMetrics
from batcher.serving.model_lifecycle import ModelLifecycle
from batcher.serving.model_version import ModelVersion, not_ready_error
from batcher.serving.name_stages import NameStages
from batcher.serving.pipelines.making import make_pipelines
from batcher.serving.references.fetcher import InputFetcher
from batcher.serving.shared_name import Surroundings
from batcher.serving.stages.quotas import Quotas
from batcher.serving.traffic import Traffic
from batcher.workers.load_turns import LoadTurns
from batcher.workers.pools import make_pools
from batcher.workers.thread import ModelLoader


@mypyc_attr(allow_interpreted_subclasses=True)
class ModelServer:
    """Holds any number of models; `infer` answers a request through the right one.

    `add` models, wait for its Deferreds, `infer`, and `stop` at the end. All methods: reactor
    thread.

    Attributes:
        metrics: where requests and batches are counted.
        clock: the only time there is.
        seconds: what `clock` says.
        lifecycle: makes, keeps and ends the versions of models.
        pools: where heavy work of single requests runs.
        call_from_thread: has the loop call a function, from any thread.
        left_out: why something in the model repository is not served, by its path there.
        name_stages: what every request passes first: quotas, and answers to repetitions.
        traffic: finds what answers a request, and divides the requests of a model among its
            versions where the settings say so.
        fetcher: fetches files that clients name in place of inputs.

    Args:
        clock: the reactor, or a `Clock` in tests.
        call_from_thread: `reactor.callFromThread`, or under asyncio `loop.call_soon_threadsafe`,
            which is cheaper.
        settings: bounds of the pools, quotas, labels of versions; None for the built-in defaults.
        metrics: where to count; None for an object of the server's own.
        progress: told a model's title and what is being done with the model.
        call_soon: under asyncio `loop.call_soon`, which is cheaper than a timer of no delay, the
            default.
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
        """Wire a server without models; nothing starts."""
        settings = settings or ServerSettings()
        self.metrics = metrics or ServerMetrics()
        self.clock, self.seconds, self.call_from_thread = clock, clock.seconds, call_from_thread
        self.pools = make_pools(settings, call_from_thread, clock)
        ways = (clock, call_from_thread, call_soon, self.pools, self.metrics)
        parts = Assembly(*ways, LoadTurns(settings.load_concurrency))
        self.lifecycle = ModelLifecycle(parts, progress, settings.drain_timeout_s)
        self.left_out = self.lifecycle.left_out
        soon = call_soon or partial(clock.callLater, 0)
        around = (self.lifecycle, self.metrics, self.pools, clock, soon, Random())
        self.traffic = Traffic(Surroundings(*around), self.ready_model)
        make_pipelines(parts, self.lifecycle, self.traffic.behind)
        self.traffic.follow(settings)
        self.fetcher = InputFetcher(settings, self.pools.inputs, self.seconds, self.metrics.fetches)
        self.name_stages = NameStages(self.lifecycle, self.metrics, self.pools.cpu, clock, settings)

    def __iter__(self) -> Iterator[ModelVersion]:
        """Iterate over every version of every model."""
        return iter(self.lifecycle.versions)

    @property
    def quotas(self) -> Quotas | None:
        """What limits the rows of each key; None limits nobody. `limit` exchanges them."""
        return self.name_stages.quotas

    @property
    def epoch(self) -> Epoch:
        """Ends whenever a model comes, goes or changes its state."""
        return self.lifecycle.epoch

    @property
    def ending(self) -> bool:
        """Whether the server is about to end: it is not ready, though it may take requests."""
        return self.lifecycle.ending

    @property
    def draining(self) -> bool:
        """Whether the server takes no more requests."""
        return self.lifecycle.draining

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever a model has come, gone or changed its state."""
        self.lifecycle.watch(changed)

    def add(
        self,
        definition: ModelDefinition,
        settings: ModelSettings,
        load: ModelLoader | None = None,
        required: bool = True,
    ) -> Deferred[None]:
        """Start to load a version of a model.

        Fires when the version is ready, fails with ModelLoadError if it cannot be.

        Args:
            definition: what the version is made of.
            settings: how the version is run.
            load: loads the model on the inference thread; None loads what `definition` says.
            required: whether the server is not ready without this version.

        Raises:
            ConfigError: that version is here already, and neither failed nor was unloaded; or no
                path can hold the model's name.
        """
        return self.lifecycle.add(definition, settings, load, required)

    def replace(
        self, definition: ModelDefinition, settings: ModelSettings, load: ModelLoader | None = None
    ) -> Deferred[None]:
        """Load a version anew, and serve it in place of the one that is ready now.

        Fires and fails as `add` does. No request is lost: the version that is here serves until the
        new one is ready, and goes on if the new one cannot be loaded. If the version that is here
        was unloaded meanwhile, so is the new one.

        Raises:
            UnknownModel: there is no such version to replace.
        """
        return self.lifecycle.replace(definition, settings, load)

    def unload(self, version: ModelVersion) -> Deferred[None]:
        """Let go of `version` when it has answered what it has taken; fires when that is done.

        Its last answers have the `drain_timeout_s` of the settings.
        """
        return self.lifecycle.unload(version)

    def find(self, name: str, version: str = "") -> ModelVersion:
        """Return that version of a model, by number or label; without one the newest that is ready.

        Raises UnknownModel; or ModelNotReady while models are still looked for, and where a label
        stands for a version that is not loaded.
        """
        try:
            return self.lifecycle.versions.find(name, version)
        except UnknownModel:
            _check_looked(self.lifecycle)
            raise

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model that can answer, ascending."""
        return self.lifecycle.versions.ready_versions(name)

    def only_model(self) -> str:
        """Return the name of the model that `/predict` means: the only one there is.

        Raises UnknownModel, or ModelNotReady while models are still looked for.
        """
        _check_looked(self.lifecycle)
        return self.lifecycle.versions.only_name()

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
            version: which version, by number or label; empty takes the newest that is ready.
            parameters: deadline, priority, key and client.

        Returns:
            A Deferred of the response. It fails with UnknownModel, ModelNotReady, InvalidInput,
            QuotaExceeded, TooLarge, QueueFull, Draining, DeadlineExceeded or ModelError. Cancelling
            it gives up the request.
        """
        try:
            return self.traffic.servable(model, version).infer(inputs, parameters)
        except BatcherError:
            return fail()

    def ready_model(self, name: str, version: str = "") -> ModelVersion:
        """Return the version of a model that can answer now.

        Raises UnknownModel, Draining or ModelNotReady.
        """
        found = self.find(name, version)
        if self.draining:
            raise Draining("the server is being stopped and takes no more requests", retry_after=5)
        if not found.accepts:
            raise not_ready_error(found, retry_after=5)
        return found

    def unready(self, public: bool = False) -> dict[str, str]:
        """Return title and reason of every model that should serve and does not.

        With `public`, only what clients may read of the reasons. Empty when all models serve.
        """
        if self.lifecycle.looking:
            return dict(self.lifecycle.fetched) or {"the model repository": "still being read"}
        if self.lifecycle.empty and not any(True for _ in self):
            return {"model repository": self.lifecycle.empty}
        return {
            version.title: version.public_text if public else version.status_text
            for version in self
            if version.is_missing
        }

    def limit(self, quotas: Quotas | None) -> None:
        """Charge the rows of requests to `quotas` from now on; None limits nobody."""
        self.name_stages.limit(quotas)

    def announce_end(self) -> None:
        """Say from now on that the server is not ready, so that clients go elsewhere.

        Requests are taken as before. `drain` comes next.
        """
        self.lifecycle.announce_end()

    def drain(self) -> Deferred[None]:
        """Take no more requests; fires when those that were taken are answered."""
        kept = self.traffic.keep()
        drained = self.lifecycle.drain().addCallback(lambda _: kept)
        return drained.addCallback(lambda _: self.traffic.let_go())

    def stop(self) -> Deferred[None]:
        """Fail what waits or runs, and end the workers.

        Fires when all workers have ended, which the worker of a hung model never does.
        """
        self.lifecycle.refuse_requests()
        self.pools.stop()
        return self.lifecycle.stop()


def _check_looked(lifecycle: ModelLifecycle) -> None:
    """Raise ModelNotReady while models are looked for: an unknown one may be among them."""
    if lifecycle.looking:
        raise ModelNotReady("the model repository is still being read", retry_after=5)
