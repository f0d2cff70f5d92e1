"""What is known of a model's batches at a moment: all that an explanation of them is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from batcher.batching.reruns import RERUN_REASONS
from batcher.batching.scheduler import BatchScheduler
from batcher.config.model_settings import EAGER_POLICIES, ModelSettings
from batcher.config.pipelines.plan import Plan
from batcher.core.history import History, Mark
from batcher.serving.metrics import ServerMetrics
from batcher.serving.model_version import ModelVersion


@dataclass(frozen=True)
class Window:
    """What happened lately, while there was traffic. Times are seconds.

    Attributes:
        seconds: how long that was; 0 where nothing has happened yet.
        ended: seconds since its end.
        batches: batches that were sent.
        rows: rows of these batches.
        batch_s: mean time of a batch on its worker; 0 where none came back.
        parts: requests, or parts of large ones, whose batch came back.
        queued: mean time that these waited for their batch.
        requests: requests that have ended.
        at_once: mean number of requests that the model had at a time, waiting or running.
        busy: share of the time for which the workers ran batches, 0 to 1.
        loop_busy: share of the time for which the server's event loop worked, 0 to 1.
        expired: rows whose deadline passed, or would have.
        failed: batches that failed.
        real: elements of batches whose rows are padded, without padding.
        padded: the same with padding; 0 where rows are not padded.
        flushes: batches that were sent, by reason.
        refused: rows that were refused on arrival, by reason.
    """

    seconds: float = 0.0
    ended: float = 0.0
    batches: int = 0
    rows: float = 0.0
    batch_s: float = 0.0
    parts: int = 0
    queued: float = 0.0
    requests: int = 0
    at_once: float = 0.0
    busy: float = 0.0
    loop_busy: float = 0.0
    expired: int = 0
    failed: int = 0
    real: int = 0
    padded: int = 0
    flushes: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows_per_batch(self) -> float:
        """Mean rows of a batch; 0 without a batch."""
        return self.rows / self.batches if self.batches else 0.0

    @property
    def rows_per_request(self) -> float:
        """Mean rows of a request, or of a part of a large one; 1 where that is not known."""
        return max(self.rows_per_batch / self.parts_per_batch, 1.0) if self.parts else 1.0

    @property
    def parts_per_batch(self) -> float:
        """Mean requests that share a batch."""
        return self.parts / self.batches if self.batches else 0.0

    def share(self, *reasons: str) -> float:
        """Return the share of the batches that were sent for one of `reasons`."""
        sent = sum(self.flushes.values())
        return sum(self.flushes.get(reason, 0) for reason in reasons) / sent if sent else 0.0

    @property
    def padding(self) -> float:
        """Share of what batches hold that is padding, 0 to 1."""
        return 1 - self.real / self.padded if self.padded else 0.0

    @property
    def reruns(self) -> float:
        """Share of the batches that were sent again."""
        return self.share(*RERUN_REASONS)

    @property
    def failures(self) -> float:
        """Share of the batches that failed, 0 to 1."""
        return min(self.failed / self.batches, 1.0) if self.batches else 0.0

    @property
    def lost(self) -> float:
        """Share of the rows that could not be answered by their deadlines."""
        late = self.expired + self.refused.get("predicted_late", 0)
        return late / (late + self.rows) if late else 0.0

    @property
    def turned_away(self) -> float:
        """Share of the rows that found the queue full."""
        refused = self.refused.get("queue_full", 0)
        return refused / (refused + self.rows) if refused else 0.0


@dataclass(frozen=True)
class Facts:
    """What is known of the batches of one version of a model. Times are seconds.

    Attributes:
        not_ready: why the version does not serve, in words; empty if it does.
        policy: the policy of the settings.
        max_batch_size: most rows of a batch, by the settings.
        model_rows: most rows that the model takes at a time.
        ceiling_rows: most rows that fit into the memory of the device, as far as is known.
        max_delay: longest wait, by the settings.
        slo: policies `slo` and `deferred`: longest time until an answer, by the settings.
        instances: copies of the model that are to take batches.
        alive: copies that take batches.
        shapes: shapes that rows have had since the model was loaded; 0 where they have one.
        waiting: rows that wait now.
        running: rows that workers hold now.
        times: rows and seconds of batches, ascending: the learnt l(b).
        double: seconds of a batch of twice the most rows; 0 where that is not known.
        returning: whether clients are known to send again when they have an answer.
        paused: whether waits for such clients were tried and have not paid.
        wait: seconds of the wait for clients that was planned last, from the end of a batch.
        longest_wait: seconds of the longest wait that may be made.
        hook_exceptions: exceptions that `preprocess` has raised since the model was loaded.
        steps: models that a pipeline asks; None for a model.
        window: what happened lately.
    """

    not_ready: str = ""
    policy: str = "eager"
    max_batch_size: int = 64
    model_rows: int = 64
    ceiling_rows: int = 64
    max_delay: float = 5e-3
    slo: float = 0.1
    instances: int = 1
    alive: int = 1
    shapes: int = 0
    waiting: int = 0
    running: int = 0
    times: tuple[tuple[float, float], ...] = ()
    double: float = 0.0
    returning: bool = False
    paused: bool = False
    wait: float = 0.0
    longest_wait: float = 0.0
    hook_exceptions: int = 0
    steps: tuple[str, ...] | None = None
    window: Window = field(default_factory=Window)

    @property
    def is_eager(self) -> bool:
        """Whether a free model takes what waits, but for clients that return."""
        return self.policy in EAGER_POLICIES

    @property
    def may_wait(self) -> bool:
        """Whether a free model may wait for clients that return, by the settings."""
        return self.is_eager and self.instances == 1 and self.max_delay > 0


def facts_of(
    version: ModelVersion, metrics: ServerMetrics, now: float, not_ready: str = ""
) -> Facts:
    """Return what is known of `version` at `now`; it does not serve if `not_ready` says why.

    Reactor thread.
    """
    counts = metrics.model(*version.key)
    mark = counts.mark(now, metrics.loop_seconds())
    workers = version.workers
    facts = facts_at(mark, counts.history, version.settings, version.scheduler, workers.wanted)
    counts.history.note(mark)
    return replace(
        facts,
        not_ready=not_ready,
        alive=workers.alive,
        hook_exceptions=counts.exceptions.get("preprocess", 0),
        steps=_models_of(version.definition.plan),
    )


def _models_of(plan: Plan | None) -> tuple[str, ...] | None:
    """Return the models that the pipeline of `plan` asks, each once; None for a model."""
    if plan is None:
        return None
    return tuple(dict.fromkeys([step.model for step in plan.steps if step.model]))


def facts_at(
    mark: Mark, history: History, settings: ModelSettings, scheduler: BatchScheduler, instances: int
) -> Facts:
    """Return what is known at `mark` of a model with these settings, all `instances` alive.

    Reactor thread.
    """
    returns, estimates = scheduler.returns, scheduler.admission.estimates()
    window = history.window(mark)
    return replace(
        _of_settings(settings, instances),
        model_rows=scheduler.admission.ceiling.largest,
        ceiling_rows=scheduler.ceiling_rows,
        shapes=estimates.shapes,
        waiting=scheduler.queue_rows,
        running=scheduler.in_flight_rows,
        times=tuple(estimates.batches),
        double=scheduler.admission.batch_seconds(2 * scheduler.ceiling_rows, ()),
        returning=returns.found,
        paused=returns.paused,
        wait=returns.wait,
        longest_wait=returns.longest,
        window=Window() if window is None else _between(*window, mark.time, instances),
    )


def _of_settings(settings: ModelSettings, instances: int) -> Facts:
    return Facts(
        policy=settings.policy,
        max_batch_size=settings.max_batch_size,
        max_delay=settings.max_delay_ms / 1e3,
        slo=settings.slo_ms / 1e3,
        instances=instances,
        alive=instances,
    )


def _between(before: Mark, after: Mark, now: float, workers: int) -> Window:
    """Return what happened between two marks of a model with so many `workers`."""
    seconds = max(after.time - before.time, 0.0)
    ended, parts = after.ended - before.ended, after.parts - before.parts
    busy = after.busy - before.busy
    return Window(
        seconds=seconds,
        ended=now - after.time,
        batches=after.batches - before.batches,
        rows=after.rows - before.rows,
        batch_s=busy / ended if ended else 0.0,
        parts=parts,
        queued=(after.queued - before.queued) / parts if parts else 0.0,
        requests=after.requests - before.requests,
        at_once=(after.pending - before.pending) / seconds if seconds else 0.0,
        # A batch counts when it comes back, with time from before the window.
        busy=min(busy / (seconds * workers), 1.0) if seconds else 0.0,
        loop_busy=min((after.loop - before.loop) / seconds, 1.0) if seconds else 0.0,
        expired=after.expired - before.expired,
        failed=after.failed - before.failed,
        real=after.real - before.real,
        padded=after.padded - before.padded,
        flushes=dict(Counter(after.flushes) - Counter(before.flushes)),
        refused=dict(Counter(after.refused) - Counter(before.refused)),
    )
