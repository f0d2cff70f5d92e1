"""Quotas at the one door that all requests go through.

Who is charged, who is refused, and who gets its rows back.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from batcher.config.model_settings import ModelSettings
from batcher.config.quota import Quota
from batcher.core.request import Parameters
from batcher.errors import (
    BatcherError,
    DeadlineExceeded,
    Draining,
    PredictedLate,
    QueueFull,
    QuotaExceeded,
    TooLarge,
)
from batcher.serving.stages.quotas import Quotas
from tests.support.http import MemoryServer
from tests.support.models import RecordingModel, rows

KEY = "SECRET"


def server(
    model: RecordingModel | None = None, rows_per_s: float = 1.0, burst: int = 4, **settings: Any
) -> MemoryServer:
    quota = Quota(rows_per_s=rows_per_s, burst_rows=burst, name="web")
    defaults = ModelSettings(max_batch_size=2, **settings)
    return MemoryServer(*([model] if model else []), quotas={KEY: quota}, defaults=defaults)


def ask(memory: MemoryServer, count: int = 1, **parameters: Any) -> list[Any]:
    """Send `count` rows and return a list that will hold the result, or the exception."""
    got: list[Any] = []
    answer: Deferred[Any] = memory.server.infer(
        "m", {"x": rows(*[1.0] * count)}, "", Parameters(**{"key": KEY, **parameters})
    )
    answer.addCallbacks(got.append, lambda failure: got.append(failure.value))
    return got


def left(memory: MemoryServer) -> int:
    """Return how many rows the quota has, by taking them."""
    count = 0
    quotas = memory.server.quotas
    assert quotas is not None
    bucket = quotas.of(KEY)
    assert bucket is not None
    try:
        while True:
            bucket.charge(1, memory.clock.seconds())
            count += 1
    except QuotaExceeded:
        return count


def test_rows_are_charged_and_what_is_beyond_never_enters_the_queue() -> None:
    memory = server()
    answers = [ask(memory, 3), ask(memory, 2)]
    (refusal,) = answers[1]
    assert isinstance(refusal, QuotaExceeded)
    assert (refusal.http_status, refusal.retry_after) == (429, 1)
    assert KEY not in str(refusal)
    assert memory.server.find("m").scheduler.queue_rows == 3
    memory.work()
    assert isinstance(answers[0][0].batch_size, int)
    assert memory.server.metrics.quota_rejected_rows == {"web": 2}
    metrics = memory.server.metrics.render().decode()
    assert 'batcher_quota_rejected_rows_total{quota="web"} 2.0' in metrics
    assert KEY not in metrics
    memory.clock.advance(1.0)
    assert ask(memory, 2) == []


def test_others_are_not_limited_where_there_is_no_quota_for_them() -> None:
    memory = server()
    assert [ask(memory, 5, key=key) for key in ("", "other", None)] == [[], [], []]


def test_a_request_of_nobody_s_is_not_charged_to_the_shared_quota_either() -> None:
    memory = server()
    memory.server.limit(Quotas({"*": Quota(rows_per_s=1)}))
    assert ask(memory, 1, key="") == []
    assert isinstance(ask(memory, 1, key="")[0], QuotaExceeded)
    assert ask(memory, 1, key=None) == []


def test_quotas_can_be_exchanged_while_requests_wait() -> None:
    memory = server()
    waiting = ask(memory, 4)
    assert isinstance(ask(memory, 1)[0], QuotaExceeded)
    memory.server.limit(Quotas({KEY: Quota(rows_per_s=2, burst_rows=2)}))
    assert ask(memory, 2) == []
    assert isinstance(ask(memory, 1)[0], QuotaExceeded)
    memory.server.limit(None)
    assert ask(memory, 9) == []
    memory.work()
    assert waiting[0].batch_size == 2


def test_a_request_larger_than_a_burst_is_let_in_once_and_paid_for_later() -> None:
    memory = server()
    assert ask(memory, 10) == []
    (refusal,) = ask(memory)
    assert refusal.retry_after == 7


@pytest.mark.parametrize(
    ("settings", "count", "error"),
    [({"max_queue_rows": 2}, 2, QueueFull), ({"max_queue_rows": 2}, 3, TooLarge)],
)
def test_a_refusal_at_the_door_gives_the_rows_back(
    settings: dict[str, Any], count: int, error: type[BatcherError]
) -> None:
    memory = server(**settings)
    ask(memory, 2, key=None)
    assert isinstance(ask(memory, count)[0], error)
    assert left(memory) == 4


def test_a_server_that_drains_gives_the_rows_back() -> None:
    memory = server()
    served = memory.server.find("m")
    served.scheduler.drain()
    (error,) = ask(memory, 3)
    assert isinstance(error, Draining)
    assert left(memory) == 4


def test_who_is_found_to_be_late_while_it_waits_gets_its_rows_back() -> None:
    memory = server(rows_per_s=1e-3)
    served = memory.server.find("m")
    served.scheduler.loaded({1: 1.0, 2: 1.0})
    ask(memory, 2, key=None)
    memory.turn()
    got = ask(memory, 1, deadline=memory.clock.seconds() + 2.5)
    assert got == []
    memory.wait(2.0)
    memory.work()
    assert isinstance(got[0], PredictedLate)
    assert left(memory) == 4


def test_a_hook_that_had_to_wait_in_vain_for_the_queue_gives_the_rows_back() -> None:
    model = RecordingModel()
    model.preprocess = dict
    memory = server(model, max_queue_rows=2)
    got = ask(memory, 2)
    ask(memory, 2, key=None)
    later = ask(memory, 2)
    memory.turn()
    assert isinstance(later[0], QueueFull)
    memory.work()
    assert got[0].batch_size == 2
    assert left(memory) == 2


def test_who_leaves_or_comes_too_late_or_fails_has_used_its_rows() -> None:
    memory = server(RecordingModel(predict=lambda inputs: {}))
    answer = memory.server.infer("m", {"x": rows(1.0)}, "", Parameters(key=KEY))
    answer.addErrback(lambda failure: failure.trap(CancelledError))
    answer.cancel()
    got = ask(memory, 1, deadline=memory.clock.seconds() + 0.5)
    memory.turn()
    memory.wait(0.6)
    assert isinstance(got[0], DeadlineExceeded)
    failed = ask(memory, 1)
    memory.work()
    assert isinstance(failed[0], BatcherError)
    assert left(memory) == 1


def test_what_may_have_run_when_the_server_stopped_has_used_its_rows() -> None:
    memory = server()
    got = ask(memory, 3)
    memory.turn()
    memory.server.stop()
    assert isinstance(got[0], Draining)
    assert left(memory) == 1


def test_an_error_about_parameters_does_not_show_the_key() -> None:
    (error,) = ask(server(), 1, deadline="soon")
    assert "got 'soon' and 0" in str(error)
    assert KEY not in str(error)


def test_quotas_are_exchanged_by_limit_alone() -> None:
    memory = server()
    with pytest.raises(AttributeError):
        memory.server.quotas = None  # type: ignore[misc]  # what programs did before `limit`
    assert memory.server.quotas is not None
