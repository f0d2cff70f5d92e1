"""Models that raise or break their promise.

Each request gets one error, and the next batch works.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from batcher.core.ragged import ragged
from batcher.core.spec import Array
from batcher.errors import BatcherError, ModelContractError, ModelError
from tests.support.models import double, model_spec, tensor
from tests.support.scheduling import Harness


class Moody:
    """A predict function that does what a test says, and doubles when it says nothing.

    Attributes:
        error: raised by the next batch.
        outputs: given by the next batch.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.outputs: dict[str, Array] | None = None

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        error, self.error = self.error, None
        outputs, self.outputs = self.outputs, None
        if error is not None:
            raise error
        return double(inputs) if outputs is None else outputs


@pytest.fixture
def moody() -> Moody:
    return Moody()


@pytest.mark.parametrize(
    "error",
    [ValueError("bad row"), SystemExit(3), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
def test_a_model_that_raises_fails_its_batch_and_the_next_one_works(
    moody: Moody, error: BaseException
) -> None:
    harness = Harness(predict=moody)
    failing = [harness.submit(1), harness.submit(2)]
    harness.turn()
    after = harness.submit(3)
    moody.error = error
    harness.perform()
    for answer in failing:
        assert isinstance(answer.error, ModelError)
        assert answer.error.__cause__ is error
    assert harness.metrics.failed_batches == 1
    assert harness.counts == (1, 0, 1), "the next batch is under way"
    harness.perform()
    assert after.values == [6]
    assert harness.metrics.failed_batches == 1
    assert harness.counts == (0, 0, 0)


def test_an_error_that_is_ours_is_told_as_it_is(moody: Moody) -> None:
    harness = Harness(predict=moody)
    answer = harness.submit(1)
    moody.error = ModelContractError("told as it is")
    harness.finish()
    assert answer.error.args == ("told as it is",)


def test_rows_out_must_equal_rows_in_and_the_message_names_both(moody: Moody) -> None:
    harness = Harness(predict=moody)
    answers = [harness.submit(1), harness.submit(2, 3)]
    moody.outputs = {"y": np.zeros((2, 4), "<f4")}
    harness.finish()
    for answer in answers:
        assert isinstance(answer.error, ModelContractError)
        assert "3 rows in, 2 rows out" in str(answer.error)


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"z": np.zeros((1, 4), "<f4")},
        {"y": np.zeros((1, 4), "<c8")},
        {"y": np.zeros((1, 4, 4), "<f4")},
        {"y": np.float32(1.0)},
    ],
    ids=["nothing", "another name", "another dtype", "another shape", "a scalar"],
)
def test_outputs_that_are_not_what_the_specification_says_fail_the_batch(
    moody: Moody, outputs: dict[str, Array]
) -> None:
    harness = Harness(predict=moody)
    answer = harness.submit(1)
    moody.outputs = outputs
    harness.finish()
    assert isinstance(answer.error, ModelContractError)
    assert harness.metrics.failed_batches == 1


def test_an_output_that_the_specification_does_not_name_cannot_carry_the_rows_of_others(
    moody: Moody,
) -> None:
    harness = Harness(predict=moody)
    answers = [harness.submit(1), harness.submit(2)]
    moody.outputs = {
        "y": np.ones((2, 4), "<f4"),
        "hidden": np.zeros((3, 2, 8), "<f4"),
    }  # (layers, rows, width)
    harness.finish()
    for answer in answers:
        try:
            outputs = answer.response.outputs
        except AssertionError:
            assert isinstance(answer.error, ModelContractError)
        else:
            assert list(outputs) == ["y"]


def test_a_cut_request_fails_with_its_first_failing_piece_and_its_other_pieces_leave_the_queue(
    moody: Moody,
) -> None:
    harness = Harness(predict=moody, max_batch_size=2, places=1)
    large, small = harness.submit(1, 2, 3, 4, 5, 6), harness.submit(7)
    harness.turn()
    moody.error = ValueError("bad row")
    harness.perform()
    assert isinstance(large.error, ModelError)
    harness.finish()
    assert small.values == [14]
    assert len(harness.model.batches) <= 3, (
        "the first, the one that left before the answer, the neighbour"
    )
    assert harness.counts == (0, 0, 0)


def test_a_cut_request_whose_second_piece_fails_gets_one_error(moody: Moody) -> None:
    harness = Harness(predict=moody, max_batch_size=2)
    large, small = harness.submit(1, 2, 3), harness.submit(4)
    harness.turn()
    harness.perform()
    moody.error = ValueError("bad row")
    harness.perform()
    assert isinstance(large.error, ModelError)
    assert isinstance(small.error, ModelError), "it shared the batch"
    assert harness.counts == (0, 0, 0)


def test_pieces_of_other_widths_are_joined_as_ragged_rows(moody: Moody) -> None:
    harness = Harness(predict=moody, max_batch_size=2)
    harness.model.postprocess = dict  # what goes to a hook is not held against the specification
    large, small = harness.submit(1, 2, 3), harness.submit(4)
    harness.turn()
    harness.perform()
    moody.outputs = {"y": np.ones((2, 9), "<f4")}  # as wide as the widest answer of the batch, say
    harness.perform()
    assert [len(row) for row in large.response.outputs["y"]] == [4, 4, 9]
    assert small.values == [1]
    assert harness.counts == (0, 0, 0)


@pytest.mark.parametrize("sizes", [(2, 0, 3), (2, 2, 2)], ids=str)
def test_each_request_gets_its_own_rows_of_a_ragged_batch_in_one_run(
    moody: Moody, sizes: tuple[int, ...]
) -> None:
    harness = Harness(predict=moody, max_batch_size=4)
    harness.model.spec = model_spec(outputs=(tensor("y", "FP32", (-1,)),))
    one, two = harness.submit(1), harness.submit(2, 3)
    moody.outputs = {"y": ragged([np.full(size, size, "<f4") for size in sizes])}
    harness.finish()
    assert one.response.outputs["y"].tolist() == [[2, 2]]
    assert [row.tolist() for row in two.response.outputs["y"]] == [
        [size] * size for size in sizes[1:]
    ]
    assert len(harness.model.batches) == 1


def test_pieces_whose_outputs_have_other_names_fail_their_request_and_no_neighbour(
    moody: Moody,
) -> None:
    harness = Harness(predict=moody, max_batch_size=2)
    harness.model.postprocess = dict  # what goes to a hook is not held against the specification
    large, small = harness.submit(1, 2, 3), harness.submit(4)
    harness.turn()
    moody.outputs = {"a": np.ones((2, 4), "<f4")}
    harness.perform()
    try:
        harness.perform()
    except KeyError as err:
        pytest.fail(f"delivering a batch must never raise: {err}")
    assert isinstance(large.error, BatcherError)
    assert small.values == [8]
    assert harness.counts == (0, 0, 0)


def test_pieces_whose_outputs_have_other_dtypes_fail_their_request_and_no_neighbour(
    moody: Moody,
) -> None:
    harness = Harness(predict=moody, max_batch_size=2)
    harness.model.postprocess = dict  # what goes to a hook is not held against the specification
    large, small = harness.submit(1, 2, 3), harness.submit(4)
    harness.turn()
    moody.outputs = {"y": np.zeros((2, 4), "<M8[s]")}
    harness.perform()
    try:
        harness.perform()
    except TypeError as err:
        pytest.fail(f"delivering a batch must never raise: {err}")
    assert isinstance(large.error, ModelError)
    assert small.values == [8]
    assert harness.counts == (0, 0, 0)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What is logged while the test runs."""
    texts: list[str] = []

    def observe(event: LogEvent) -> None:
        texts.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield texts
    globalLogPublisher.removeObserver(observe)


def test_each_failed_batch_is_logged_once_with_its_traceback(
    moody: Moody, logged: list[str]
) -> None:
    harness = Harness(predict=moody)
    harness.submit(1)
    harness.submit(2)
    moody.error = ValueError("bad row")
    harness.finish()
    (text,) = logged
    assert text.startswith("model m/1: 2 rows of a batch failed")
    assert "ValueError: bad row" in text
    assert "in __call__" in text


def test_a_model_that_fails_every_batch_leaves_a_bounded_number_of_tracebacks(
    moody: Moody, logged: list[str]
) -> None:
    harness = Harness(predict=moody)
    for _ in range(30):
        harness.submit(1)
        moody.error = ValueError("bad row")
        harness.finish()
        harness.clock.advance(1)
    assert len(logged) == 3
    assert "9 more like it" in logged[-1]
    assert harness.metrics.failed_batches == 30


class Circular(Exception):
    """An error that is its own cause, as after `raise error from error`.

    It notices when it is followed for ever.
    """

    followed = 0

    @property
    def __cause__(self) -> BaseException:
        self.followed += 1
        if self.followed > 1000:
            pytest.fail("the loop would hang")
        return self


def test_an_error_that_is_its_own_cause_is_told_like_any_other(moody: Moody) -> None:
    harness = Harness(predict=moody)
    answer = harness.submit(1)
    moody.error = Circular("round and round")
    harness.finish()
    assert isinstance(answer.error, ModelError)
    assert "round and round" in str(answer.error)


def test_the_model_s_memory_is_not_shared_with_answers_that_were_given(moody: Moody) -> None:
    harness = Harness(predict=moody)
    arena = np.ones((1, 4), "<f4")
    answers = [harness.submit(1)]
    for value in (1.0, 2.0):
        arena[...] = value
        moody.outputs = {"y": arena}
        harness.finish()
        answers.append(harness.submit(2))
    assert [answer.values for answer in answers[:2]] == [[1], [2]]


class Wordless(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # that is what is wrong with it


def test_an_exception_that_cannot_be_written_fails_its_batch_like_any_other(moody: Moody) -> None:
    harness = Harness(predict=moody)
    failing = [harness.submit(1), harness.submit(2)]
    harness.turn()
    moody.error = Wordless()
    harness.perform()
    for answer in failing:
        assert isinstance(answer.error, ModelError)
        assert "Wordless" in str(answer.error)
    after = harness.submit(3)
    harness.turn()
    harness.perform()
    assert after.values == [6]
