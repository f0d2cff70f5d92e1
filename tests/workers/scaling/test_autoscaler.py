"""Instances that come and go with the load, step by step, with a pool in memory."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from batcher.batching.autoscale import Autoscale
from batcher.batching.batch import Batch
from batcher.batching.worker import Condition, ConditionListener, Deliver
from batcher.config.autoscale import AutoscaleSettings
from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ModelMetrics
from batcher.errors import ModelLoadError, WorkerLost
from batcher.models.protocol import Arrays, LoadedModel, Progress, RemoteHook
from batcher.serving.assembly import build_scheduler
from batcher.workers.memory import MemoryWorker
from batcher.workers.scaling.autoscaler import ASK_AGAIN_S, WAIT_TOLD_S, Autoscaler
from batcher.workers.scaling.passing_instances import PassingInstances
from batcher.workers.scaling.passing_worker import PassingWorker
from tests.support.models import RecordingModel, checked, model_spec, rows
from tests.support.scheduling import Answer, request

COOL_DOWN_S = 20.0
SETTINGS = ModelSettings(
    worker="ray",
    autoscale=AutoscaleSettings(max=3, cool_down_s=COOL_DOWN_S),
    max_batch_size=2,
    pipeline_depth=1,
    max_delay_ms=0,
    retry_on_crash=True,
    timeout_ms=600_000,
)
WAITS = "waiting for a node of Ray with 1 GPU"


class OwnHook(RemoteHook):
    """The hook of one instance; notes in `ran` which instance ran it."""

    def __init__(self, name: str, ran: list[str]) -> None:
        self.name, self._ran = name, ran

    def run(self, values: Arrays, rows: int) -> Any:
        self._ran.append(self.name)
        return dict(values), rows


class Instance(MemoryWorker):
    """An instance of a pool: it loads, and ends, when a test says so."""

    def __init__(self, pool: Pool, progress: Progress) -> None:
        super().__init__(checked(RecordingModel()), pool.clock)
        self.loading: Deferred[LoadedModel] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.pool, self.name = pool, f"instance {len(pool.instances)}"
        self._progress = progress

    def start(self, deliver: Deliver, changed: ConditionListener) -> Deferred[LoadedModel]:
        super().start(deliver, changed)
        self._progress(WAITS)
        return self.loading

    def load(self) -> None:
        """Have a node, and load the model there."""
        hook = OwnHook(self.name, self.pool.hooks_ran)
        self.loading.callback(LoadedModel(timings={1: 1.0, 2: 1.0}, preprocess=hook))

    def quit(self) -> Deferred[None]:
        if not self.quitting:
            super().quit()
            if not self.loading.called:
                self.loading.errback(ModelLoadError("it was told to end"))
            self._check_ended()
        return self.ended

    def perform(self) -> Batch:
        batch = super().perform()
        self._check_ended()
        return batch

    def _check_ended(self) -> None:
        if self.quitting and not self.batches and not self.ended.called:
            self.ended.callback(None)


class Pool:
    """A model on a cluster in memory, with its scheduler and what has it scaled.

    Attributes:
        instances: every instance that was asked for, in order.
        log: what was told to the operator.
        hooks_ran: which instances ran a hook.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.instances: list[Instance] = []
        self.log: list[str] = []
        self.hooks_ran: list[str] = []
        workers = [PassingWorker(self._make, lambda text: None) for _ in range(3)]
        self.workers = PassingInstances(workers, 1)
        metrics = ModelMetrics("m", "1")
        spec = model_spec()
        self.scheduler = build_scheduler(SETTINGS, spec, workers, self.clock, metrics)
        policy = Autoscale(1, 3, COOL_DOWN_S)
        demand = self.scheduler.backlog.demand
        self.autoscaler = Autoscaler(self.workers, policy, demand, self.clock, self.log.append)
        hears = self.scheduler.deliver, self.scheduler.set_alive, lambda: None
        self.loaded: list[LoadedModel] = []
        self.workers.start(*hears).addCallback(self.loaded.append)
        self.instances[0].load()
        self.scheduler.loaded(self.loaded[0].timings)
        self.autoscaler.start()

    def _make(self, progress: Progress) -> Instance:
        self.instances.append(Instance(self, progress))
        return self.instances[-1]

    def submit(self, count: int) -> list[Answer]:
        """Send `count` requests of one row."""
        answers = [Answer(self.scheduler.submit(request(rows(each)))) for each in range(count)]
        self.wait(0)
        return answers

    def wait(self, seconds: float) -> None:
        """Let time pass, second by second, in which nothing is run."""
        self.clock.advance(seconds % 1)
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.scheduler.check_invariants()

    def work(self, seconds: float = 1) -> None:
        """Have every instance run its batch, then let time pass."""
        for instance in self.instances:
            if instance.batches:
                instance.perform()
        self.wait(seconds)

    def finish(self) -> None:
        """Have instances run batches until nothing waits."""
        while self.scheduler.pending:
            self.work()

    @property
    def held(self) -> list[int]:
        """How many batches each instance holds."""
        return [len(instance.batches) for instance in self.instances]

    @property
    def counts(self) -> tuple[int, int]:
        """Instances that are wanted, and those that take batches."""
        return self.workers.wanted, self.workers.alive


@pytest.fixture
def pool() -> Pool:
    return Pool()


def grown(pool: Pool) -> list[Answer]:
    """Have a backlog that two more instances come for; return its answers."""
    answers = pool.submit(120)
    pool.wait(1)
    for instance in pool.instances[1:]:
        instance.load()
    pool.wait(0)
    assert pool.counts == (3, 3)
    return answers


def test_an_instance_takes_batches_once_its_model_is_loaded(pool: Pool) -> None:
    answers = pool.submit(120)
    assert pool.held == [1]
    pool.wait(1)
    assert pool.log == ["instances wanted: 3, before 1"]
    assert (pool.held, pool.counts) == ([1, 0, 0], (3, 1))
    pool.work()
    assert pool.held == [1, 0, 0]
    pool.instances[2].load()
    pool.wait(0)
    assert (pool.held, pool.counts) == ([1, 0, 1], (3, 2))
    pool.instances[1].load()
    pool.finish()
    assert [answer.values for answer in answers] == [[2 * each] for each in range(120)]
    assert all(instance._model for instance in pool.instances)


def test_one_that_leaves_ends_its_batch_takes_no_other_and_is_let_go_of(pool: Pool) -> None:
    grown(pool)
    while pool.scheduler.queue_rows > 6:
        pool.work()
    pool.submit(12)
    assert pool.held == [1, 1, 1]
    pool.workers.scale(1, may_come=True)
    assert pool.counts == (1, 1)
    pool.work(0)
    assert pool.held == [1, 0, 0], "the other two have run what they held"
    assert [each.ended.called for each in pool.instances] == [False, True, True]
    pool.finish()
    assert pool.scheduler.pending == 0


def test_a_place_that_was_left_is_taken_anew_once_it_is_empty(pool: Pool) -> None:
    grown(pool)
    pool.workers.scale(2, may_come=True)
    pool.workers.scale(3, may_come=True)
    assert len(pool.instances) == 3, "the one that leaves holds a batch still"
    pool.work(0)
    pool.workers.scale(3, may_come=True)
    assert len(pool.instances) == 4
    pool.instances[3].load()
    pool.wait(0)
    assert pool.held == [1, 1, 0, 1]


def test_after_the_cool_down_as_few_are_there_as_at_first(pool: Pool) -> None:
    grown(pool)
    pool.finish()
    pool.wait(5)
    assert pool.counts == (3, 3)
    pool.wait(COOL_DOWN_S)
    assert pool.counts == (1, 1)
    assert pool.log[1:] == ["instances wanted: 1, before 3"]
    assert [each.quitting for each in pool.instances] == [False, True, True]


def test_a_cluster_without_room_is_told_of_once_and_the_rest_goes_on(pool: Pool) -> None:
    pool.submit(600)
    pool.work(1)
    for _ in range(int(WAIT_TOLD_S) + 20):
        pool.work()
    assert pool.log[1:] == [f"an instance has not come for 30 s ({WAITS}); meanwhile 1 of 3 serve"]
    assert len(pool.instances) == 3, "those that wait for a node are asked for once"
    pool.finish()
    pool.wait(COOL_DOWN_S + 12)
    assert all(each.quitting for each in pool.instances[1:]), "nobody needs them any more"
    assert pool.counts == (1, 1)
    assert [each for each in pool.log[2:] if "wanted:" not in each] == []


def test_what_cannot_be_loaded_is_told_once_and_asked_for_again_later(pool: Pool) -> None:
    pool.submit(900)
    pool.work(1)
    for instance in pool.instances[1:]:
        instance.loading.errback(ModelLoadError("other files on node n"))
    told = (
        "an instance could not be had: other files on node n; 1 of 3 serve, and it is asked for "
        "again every 60 s"
    )
    assert pool.log[1:] == [told]
    for _ in range(int(ASK_AGAIN_S) - 1):
        pool.work()
    assert len(pool.instances) == 3
    pool.work(2)
    assert len(pool.instances) == 5
    pool.instances[3].loading.errback(ModelLoadError("other files on node n"))
    assert pool.log[1:] == [told]
    pool.instances[4].load()
    pool.work(0)
    assert pool.held == [1, 0, 0, 0, 1]


def test_one_that_was_lost_comes_back_as_ever_and_is_the_first_to_leave(pool: Pool) -> None:
    answers = grown(pool)
    pool.instances[1].lose(Condition.RESTARTING, "the actor was lost")
    pool.wait(3)
    assert (pool.counts, len(pool.instances)) == ((3, 2), 3)
    pool.instances[1].revive()
    pool.wait(0)
    assert (pool.held, pool.counts) == ([1, 1, 1], (3, 3))
    pool.instances[0].lose(Condition.RESTARTING, "the actor was lost")
    pool.workers.scale(2, may_come=True)
    assert [each.quitting for each in pool.instances] == [True, False, False]
    pool.finish()
    assert [answer.values for answer in answers] == [[2 * each] for each in range(120)]


def test_a_batch_that_is_lost_with_one_that_leaves_runs_elsewhere(pool: Pool) -> None:
    answers = grown(pool)
    leaves = pool.instances[2]
    pool.workers.scale(2, may_come=False)
    leaves.lose(Condition.RESTARTING, "the actor was lost")
    assert pool.counts == (2, 2)
    pool.finish()
    assert not any(isinstance(each, WorkerLost) for answer in answers for each in answer.fired)
    assert [answer.values for answer in answers] == [[2 * each] for each in range(120)]


def test_hooks_run_in_whatever_instances_are_there(pool: Pool) -> None:
    hook = pool.loaded[0].preprocess
    assert isinstance(hook, RemoteHook)

    def ran(count: int) -> list[str]:
        pool.hooks_ran.clear()
        for _ in range(count):
            hook.run({"x": rows(1)}, 1)
        return sorted(pool.hooks_ran)

    assert ran(2) == ["instance 0"] * 2
    grown(pool)
    assert ran(3) == ["instance 0", "instance 1", "instance 2"]
    pool.workers.scale(1, may_come=True)
    assert ran(2) == ["instance 0"] * 2


def test_once_it_has_ended_nothing_changes_but_what_is_on_its_way_comes(pool: Pool) -> None:
    pool.submit(120)
    pool.wait(1)
    pool.autoscaler.end()
    pool.autoscaler.end()
    pool.instances[1].load()
    pool.instances[2].loading.errback(ModelLoadError("gone"))
    pool.work(0)
    assert pool.held == [1, 1, 0]
    pool.finish()
    pool.wait(COOL_DOWN_S + 12)
    assert pool.counts == (3, 2)
    assert len(pool.instances) == 3


def test_all_have_ended_when_those_on_their_way_have(pool: Pool) -> None:
    pool.submit(2)
    pool.workers.scale(3, may_come=True)
    pool.instances[1].load()
    ended: list[None] = []
    pool.workers.quit().addCallback(ended.append)
    assert pool.instances[2].ended.called
    assert not ended
    pool.work(0)
    assert ended == [None]
    assert pool.log == [], "what was not wanted any more is no failure"
