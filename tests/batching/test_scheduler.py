"""The scheduler, single-stepped.

When batches are bound, whose rows come back, and what is counted at each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from batcher.batching.policies.delay import Delay
from batcher.core.request import InferenceRequest, Parameters
from batcher.core.spec import Array
from tests.support.models import model_spec, rows, tensor
from tests.support.scheduling import Answer, Harness, request


def test_a_request_is_answered_with_its_own_rows_and_counted_at_each_step() -> None:
    harness = Harness()
    metrics = harness.metrics
    assert harness.counts == (0, 0, 0)

    answer = harness.submit(1, 2)
    assert harness.counts == (1, 2, 0)
    assert harness.scheduler.queue_bytes == 2 * 4 * 4
    assert metrics.load is harness.scheduler
    assert metrics.batch_size.count == 0

    harness.turn()
    assert harness.counts == (1, 0, 2)
    assert harness.scheduler.queue_bytes == 0
    assert (metrics.batch_size.count, metrics.batch_size.total) == (1, 2)
    assert metrics.flushes == {"idle": 1}
    assert metrics.queue_wait.count == metrics.model_time.count == 0
    assert answer.waiting

    harness.perform()
    assert harness.counts == (0, 0, 0)
    assert answer.values == [2, 4]
    assert metrics.queue_wait.count == metrics.model_time.count == 1
    assert (metrics.failed_batches, metrics.rejected_rows) == (0, {})
    assert metrics.cancelled_rows == metrics.expired_rows == {"queued": 0, "in_flight": 0}


def test_nothing_is_decided_before_the_loop_turns_so_that_a_burst_shares_a_batch() -> None:
    harness = Harness()
    answers = [harness.submit(value) for value in (1, 2, 3)]
    assert harness.events == []
    harness.turn()
    assert harness.events == ["handed 3"]
    harness.perform()
    assert [answer.values for answer in answers] == [[2], [4], [6]]


def test_a_burst_asks_the_loop_for_one_turn_and_the_next_burst_for_another() -> None:
    harness = Harness(soon=True)
    for value in (1, 2, 3):
        harness.submit(value)
    assert len(harness.soon) == 1
    harness.turn()
    assert harness.events == ["handed 3"]
    harness.submit(4)
    assert harness.soon == [], "nothing could be sent: the worker is busy"
    for value in (5, 6, 7):
        harness.submit(value)
    assert len(harness.soon) == 1
    harness.turn()
    assert harness.events == ["handed 3", "handed 4"]


def test_requests_gather_while_the_worker_is_busy() -> None:
    harness = Harness()
    first = harness.submit(1)
    harness.turn()
    others = [harness.submit(value) for value in (2, 3)]
    harness.turn()
    assert harness.counts == (3, 2, 1), "a batch that could grow is not bound early"
    assert harness.perform() == [1]
    assert first.values == [2]
    assert harness.perform() == [2, 3]
    assert [answer.values for answer in others] == [[4], [6]]


def test_a_full_batch_fills_the_second_place_and_no_third() -> None:
    harness = Harness(max_batch_size=2)
    harness.submit(0)
    harness.turn()
    for value in (1, 2, 3, 4, 5):
        harness.submit(value)
    harness.turn()
    assert harness.events == ["handed 1", "handed 2"]
    assert harness.counts == (6, 3, 3)
    harness.perform()
    assert harness.events == ["handed 1", "handed 2", "handed 2"]
    harness.perform()
    assert len(harness.events) == 3, "one row could still grow"
    harness.perform()
    assert harness.events[3:] == ["handed 1"]


def test_with_one_place_nothing_is_bound_while_a_batch_runs() -> None:
    harness = Harness(max_batch_size=2, places=1)
    for value in range(6):
        harness.submit(value)
    harness.turn()
    assert harness.counts == (6, 4, 2)
    harness.perform()
    assert harness.counts == (4, 2, 2)


def test_the_next_batch_is_handed_over_before_any_answer_is_written() -> None:
    harness = Harness()
    for value in (1, 2):
        answer = harness.submit(value)
        answer.deferred.addBoth(lambda _, value=value: harness.events.append(f"answered {value}"))
    harness.turn()
    harness.submit(3)
    harness.perform()
    assert harness.events == ["handed 2", "handed 1", "answered 1", "answered 2"]


def test_answers_are_given_in_the_order_of_the_rows() -> None:
    harness = Harness(max_batch_size=8)
    answers = [harness.submit(value) for value in range(8)]
    for index, answer in enumerate(answers):
        answer.deferred.addBoth(lambda _, index=index: harness.events.append(index))
    harness.turn()
    harness.perform()
    assert harness.events == ["handed 8", *range(8)]


def test_a_request_larger_than_a_batch_is_cut_and_put_together_again() -> None:
    harness = Harness(max_batch_size=4)
    answer = harness.submit(*range(10))
    assert harness.counts == (1, 10, 0)
    harness.finish()
    assert harness.model.sizes() == [4, 4, 2]
    assert answer.values == [2 * value for value in range(10)]
    assert answer.response.outputs["y"].shape == (10, 4)
    assert answer.response.batch_size == 4
    assert harness.counts == (0, 0, 0)
    assert harness.metrics.batch_size.total == 10


def test_the_last_piece_of_a_large_request_shares_its_batch() -> None:
    harness = Harness(max_batch_size=4)
    large, small = harness.submit(1, 2, 3, 4, 5), harness.submit(6)
    harness.finish()
    assert harness.model.sizes() == [4, 2]
    assert (large.values, small.values) == ([2, 4, 6, 8, 10], [12])


def test_a_large_request_is_answered_only_when_its_last_piece_is() -> None:
    harness = Harness(max_batch_size=2)
    answer = harness.submit(1, 2, 3)
    harness.turn()
    harness.perform()
    assert answer.waiting
    assert harness.counts == (1, 0, 1)
    harness.perform()
    assert answer.values == [2, 4, 6]


def test_requests_of_other_shapes_run_in_batches_of_their_own() -> None:
    harness = Harness()
    answers = [harness.submit(index, width=3 + index % 2) for index in range(4)]
    harness.turn()
    assert harness.metrics.flushes == {"shape": 1}
    harness.finish()
    assert harness.metrics.flushes == {"shape": 1, "idle": 1}
    assert harness.model.sizes() == [2, 2]
    assert [answer.values for answer in answers] == [[0], [2], [4], [6]]
    assert [answer.response.outputs["y"].shape for answer in answers] == [
        (1, 3),
        (1, 4),
        (1, 3),
        (1, 4),
    ]


def test_a_higher_level_goes_first_and_zero_is_the_default_level() -> None:
    harness = Harness(max_batch_size=1, weight=lambda level: 1.0)
    order = [
        harness.submit(value, priority=level) for value, level in ((1, 3), (2, 2), (3, 1), (4, 0))
    ]
    assert [part.level for part in harness.queue] == [3, 2, 1, 1]
    harness.turn()
    harness.finish()
    assert [batch["x"][0, 0] for batch in harness.model.batches] == [3, 2, 1, 4]
    assert all(not answer.waiting for answer in order)


def test_the_response_names_the_version_and_says_where_the_time_went() -> None:
    harness = Harness()
    answer = harness.submit(1, 2)
    harness.turn(0.5)
    harness.clock.advance(0.25)  # the worker has it, but has not begun
    harness.perform()
    response = answer.response
    assert (response.model, response.version) == ("m", "1")
    assert response.batch_size == 2
    assert response.queue == pytest.approx(0.75)
    assert harness.metrics.queue_wait.total == pytest.approx(0.75)


def test_compute_time_of_a_cut_request_is_the_sum_over_its_batches() -> None:
    harness = Harness(
        max_batch_size=2, predict=lambda inputs: (harness.clock.advance(0.5), {"y": inputs["x"]})[1]
    )
    answer = harness.submit(1, 2, 3)
    harness.finish()
    assert answer.response.compute == pytest.approx(1.0)
    assert harness.metrics.model_time.total == pytest.approx(1.0)


def test_every_input_and_every_output_keeps_its_rows() -> None:
    number_in, text_in = tensor("a", "INT64", ()), tensor("b", "BYTES", (1,))
    spec = model_spec(inputs=(number_in, text_in), outputs=(text_in, number_in))
    harness = Harness(
        spec=spec, predict=lambda inputs: {"a": inputs["a"] + 1, "b": inputs["b"]}, max_batch_size=2
    )
    answers = []
    for number in range(3):
        text = np.array([[b"%d" % number]], dtype=object)
        inputs = {"a": np.array([number], dtype="<i8"), "b": text}
        answers.append(Answer(harness.scheduler.submit(InferenceRequest("m", "1", inputs, 1))))
    harness.finish()
    assert harness.model.sizes() == [2, 1]
    assert [answer.response.outputs["a"].tolist() for answer in answers] == [[1], [2], [3]]
    assert [answer.response.outputs["b"].tolist() for answer in answers] == [
        [[b"0"]],
        [[b"1"]],
        [[b"2"]],
    ]


def test_the_request_s_own_arrays_are_never_given_to_the_model() -> None:
    def overwrite(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": np.add(inputs["x"], 1, out=inputs["x"])}

    harness = Harness(predict=overwrite)
    values = rows(1, 2)
    values.flags.writeable = False
    answer = Answer(harness.scheduler.submit(request(values, Parameters())))
    harness.finish()
    assert answer.values == [2, 3]
    assert values[:, 0].tolist() == [1, 2]


def test_delay_waits_on_the_clock_and_sends_when_the_time_is_over() -> None:
    harness = Harness(Delay(4, 8.0))
    harness.submit(1)
    harness.turn()
    harness.turn(4.0)
    harness.submit(2)
    harness.turn(3.0)
    assert harness.events == []
    harness.turn(1.0)
    assert harness.events == ["handed 2"]
    assert harness.metrics.flushes == {"waited": 1}


def test_delay_sends_a_full_batch_without_waiting() -> None:
    harness = Harness(Delay(4, 8.0))
    for value in range(4):
        harness.submit(value)
    harness.turn()
    assert harness.events == ["handed 4"]
    assert harness.metrics.flushes == {"full": 1}


def test_delay_counts_from_the_arrival_also_while_the_worker_was_busy() -> None:
    harness = Harness(Delay(4, 8.0))
    for value in range(4):
        harness.submit(value)
    harness.turn()
    harness.submit(4)
    harness.turn(10.0)
    assert harness.events == ["handed 4"]
    harness.perform()
    assert harness.events == ["handed 4", "handed 1"], "its wait was over when the worker came back"


def test_a_shape_that_waits_under_delay_is_not_starved_by_one_that_is_always_full() -> None:
    harness = Harness(Delay(2, 8.0))
    rare = harness.submit(-1, width=3)
    harness.turn()
    for number in range(50):
        while harness.scheduler.queue_rows < 7:
            harness.submit(number)
        harness.turn(1.0)
        harness.perform()
        if not rare.waiting:
            break
    assert rare.values == [-2], "not expired, for want of a turn in 32 batches"


def test_the_worker_may_begin_before_answers_are_written_also_if_more_waits() -> None:
    harness = Harness()
    worker: Any = harness.worker
    worker.let_begin = lambda: harness.events.append("let begin")
    first = harness.submit(0)
    first.deferred.addCallback(lambda _: harness.events.append("answered 0"))
    harness.turn()
    harness.submit(1)
    harness.turn()
    harness.perform()
    assert harness.events == ["handed 1", "handed 1", "let begin", "answered 0"]
    for value in range(2, 8):
        harness.submit(value)
    harness.perform()
    assert harness.events[4:] == ["handed 4", "let begin"], "two wait"
    for value in range(8, 10):
        harness.submit(value)
    harness.turn()
    assert harness.events[6:] == ["handed 4"], "behind the one that runs"
    harness.submit(10)
    harness.perform()
    assert harness.events[7:] == ["let begin"], "one that was handed over before"
