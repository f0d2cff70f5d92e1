"""What a pipeline has in the place of a worker: it loads the steps, and follows their models.

A worker says when a version is ready, and when it stops to take requests. Of a pipeline that
depends on its models:

    a model of a step                         the pipeline
    is being loaded, as the server starts     waits with its own load
    is unknown, or does not fit the steps     fails to load; the error names file and line
    failed, was unloaded, hangs               takes no requests, and says which model it needs
    is ready again, or was replaced           takes requests again, if all steps still fit

A pipeline and its models may come with one and the same reload. Then the pipeline is checked
against the models that come with it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.batching.batch import Batch
from batcher.batching.worker import CallFromThread, Condition, ConditionListener, Deliver
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.pipelines.plan import Plan
from batcher.core.error_text import message
from batcher.core.spec import ModelSpec
from batcher.errors import ConfigError, ModelLoadError
from batcher.models.protocol import LoadedModel
from batcher.serving.pipelines.code import load_code
from batcher.serving.pipelines.counts import PipelineCounts
from batcher.serving.pipelines.fitting import fit
from batcher.serving.pipelines.graph import Code, Graph
from batcher.serving.pipelines.models import PipelineModels, Standing
from batcher.serving.pipelines.on_device import OnDevice
from batcher.serving.pipelines.stage import PipelineStage
from batcher.workers.pool import CpuPool

_log = Logger()


def _do_nothing() -> None:
    """Stand for the end of what has not begun."""


class Links(NamedTuple):
    """What a pipeline knows of the server around it.

    Attributes:
        models: finds the models of the steps.
        on_device: has values stay on a device where two of the models share it.
        stage: answers the requests.
        counts: where rows are counted.
        watch: has a function called whenever a model changes, and returns what ends that.
        is_adopted: says whether the version of a worker serves already.
        report: hears what is done while the pipeline loads.
    """

    models: PipelineModels
    on_device: OnDevice
    stage: PipelineStage
    counts: PipelineCounts
    watch: Callable[[Callable[[], None]], Callable[[], None]]
    is_adopted: Callable[[PipelineWorker], bool]
    report: Callable[[str], None]


class PipelineWorker:
    """Loads and follows one version of a pipeline; it runs no batches. Reactor thread."""

    _changed: ConditionListener
    _deliver: Deliver

    def __init__(
        self,
        definition: ModelDefinition,
        settings: ModelSettings,
        links: Links,
        clock: IReactorTime,
        call_from_thread: CallFromThread,
    ) -> None:
        """Prepare to load `definition`."""
        assert definition.plan is not None, "a pipeline has a plan"
        self._definition = definition
        self._settings = settings
        self._plan: Plan = definition.plan
        self._links = links
        self._clock = clock
        self._unwatch: Callable[[], None] = _do_nothing
        self._pool = CpuPool(1, 1, 1, call_from_thread, clock, "pipeline")
        self._call_from_thread = call_from_thread
        self._code: dict[str, Code] = {}
        self._loaded: Deferred[LoadedModel] = Deferred()
        self._has_loaded = self._has_fitted = self._ended = False
        self._specs: dict[str, ModelSpec] = {}
        self._misfit = ""
        self._condition = (Condition.ALIVE, "")
        self._look: Any = None

    def start(self, deliver: Deliver, changed: ConditionListener) -> Deferred[LoadedModel]:
        """Load the code of steps, wait for their models, and check that all goes together."""
        self._changed, self._deliver = changed, deliver
        self._links.report("loading")
        self._load_code().addCallbacks(self._follow, self._load_failed)
        return self._loaded

    def do(self, batch: Batch) -> None:
        """Refuse `batch`: the stage answers all requests."""
        raise RuntimeError("a pipeline runs no batches of its own")

    def linger(self) -> None:
        """Do nothing: there are no batches."""

    def let_begin(self) -> None:
        """Do nothing: there are no batches."""

    def quit(self) -> Deferred[None]:
        """Follow the models no longer."""
        self._stop_following()
        self._pool.stop()
        if not self._loaded.called:
            reason = f"{self._title}: it was told to end before it loaded"
            self._loaded.errback(ModelLoadError(reason))
        return succeed(None)

    @property
    def _title(self) -> str:
        spec = self._definition.spec
        return f"model {spec.name!r} version {spec.version}"

    def _load_code(self) -> Deferred[dict[str, Code]]:
        if not any(step.entry for step in self._plan.steps):
            return succeed({})
        deadline = self._clock.seconds() + (self._settings.load_timeout_s or 86_400)
        load = partial(load_code, self, self._definition, self._title, self._call_from_thread)
        return self._pool.run(0, deadline, load)

    def _follow(self, code: dict[str, Code]) -> None:
        if self._ended:
            return
        self._code = code
        self._unwatch = self._links.watch(self._look_soon)
        self._look_soon()

    def _stop_following(self) -> None:
        self._ended = True
        self._links.on_device.end()
        unwatch, self._unwatch = self._unwatch, _do_nothing
        unwatch()
        if self._look is not None and self._look.active():
            self._look.cancel()

    def _load_failed(self, failure: Failure) -> None:
        if not self._loaded.called:
            text = f"{self._title}: {message(failure.value)}"
            error = failure.value if isinstance(failure.value, ModelLoadError) else None
            self._loaded.errback(error or ModelLoadError(text))

    def _look_soon(self) -> None:
        """Look at the models in the next turn of the loop: many may change in one."""
        if not self._ended and (self._look is None or not self._look.active()):
            self._look = self._clock.callLater(0, self._look_now)

    def _look_now(self) -> None:
        is_coming = not self._links.is_adopted(self)
        if not self._has_loaded:
            self._try_load(is_coming)
            return
        standing = self._links.models.standing(is_coming)
        if standing.condition is not Condition.DEAD:
            self._fit(is_coming)
            if self._misfit:
                standing = Standing(Condition.DEAD, self._misfit)
        # Also while a model is away: nobody takes what another one would keep for it.
        self._keep_on_device()
        if standing[:2] != self._condition:
            self._condition = standing[:2]
            self._changed(*self._condition)

    def _keep_on_device(self) -> None:
        """Have values stay on a device where two models share it now; the log says which do."""
        graph, on_device = self._links.stage.graph, self._links.on_device
        before = on_device.names
        on_device.look()
        if graph is not None:
            graph.keep_on_device(on_device.passages)
        if on_device.names != before:
            kept = ", ".join(on_device.names) or "none any more"
            _log.info("{title}: values that stay on a GPU: {kept}", title=self._title, kept=kept)

    def _try_load(self, is_coming: bool) -> None:
        # Those that come and those that serve: as the server starts, they are being loaded.
        if waiting := self._links.models.waits_for(is_coming=True):
            self._links.report(waiting)
            return
        standing = self._links.models.standing(is_coming=True)
        if standing.condition is not Condition.DEAD:
            self._fit(is_coming=True)
        if wrong := self._misfit or (standing.reason if standing.is_wrong else ""):
            self._stop_following()
            self._loaded.errback(ModelLoadError(f"{self._title}: {wrong}"))
            return
        self._has_loaded = True
        self._loaded.callback(LoadedModel())
        self._look_now()

    def _fit(self, is_coming: bool) -> None:
        """Make the graph anew if a model is another one than before."""
        specs = self._links.models.specs(is_coming)
        before = self._specs
        is_known = before.keys() == specs.keys() and self._has_fitted
        if is_known and all(specs[name] is spec for name, spec in before.items()):
            return
        self._has_fitted = True
        self._specs, self._misfit = specs, ""
        try:
            fitted = fit(self._definition.spec, self._plan, lambda step: specs[step.name])
        except ConfigError as err:
            self._misfit = str(err)
            return
        self._links.stage.graph = Graph(
            fitted, self._links.models.finders(), self._code, self._links.counts
        )
