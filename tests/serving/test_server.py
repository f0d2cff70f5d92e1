"""Names and versions, and what a request is told when it cannot be served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from twisted.internet.defer import Deferred

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.request import Parameters
from batcher.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidInput,
    ModelLoadError,
    ModelNotReady,
    QueueFull,
    TooLarge,
    UnknownModel,
)
from batcher.models.loading import load_model
from batcher.models.protocol import Progress
from batcher.serving.model_version import ModelState
from tests.support.crossing import PATIENCE
from tests.support.models import model_spec, rows
from tests.support.serving import SETTINGS, Serving


@pytest.fixture
def serving() -> Iterator[Serving]:
    serving = Serving()
    yield serving
    serving.end()


def failing(error: BaseException) -> Callable[[Progress], Any]:
    def load(progress: Progress) -> Any:
        raise error

    return load


def error_now(answer: Deferred[Any]) -> BaseException:
    """Return the exception that `answer` has failed with already."""
    failures: list[Any] = []
    answer.addErrback(failures.append)
    assert failures, "it has not failed yet"
    return failures[0].value


def test_a_request_is_answered_by_its_model(serving: Serving) -> None:
    serving.add_ready("m")
    serving.add_ready("other", predict=lambda inputs: {"y": inputs["x"] + 1})
    mine, others = serving.infer(1, 2), serving.infer(1, 2, model="other")
    assert serving.values(mine) == [2, 4]
    assert serving.values(others) == [2, 3]


def test_without_a_version_the_newest_that_is_ready_answers(serving: Serving) -> None:
    for version in ("2", "10", "9"):
        serving.add_ready(version=version)
    assert serving.response(serving.infer(1)).version == "10", "by number, not by text"


def test_a_newer_version_that_is_not_ready_does_not_answer(serving: Serving) -> None:
    leave = Event()

    def load(progress: Progress) -> Any:
        assert leave.wait(PATIENCE)
        raise ModelLoadError("never mind")

    serving.add_ready(version="1")
    assert isinstance(
        serving.loop.error_of(serving.add(version="2", load=failing(ModelLoadError("broken")))),
        ModelLoadError,
    )
    loading = serving.add(version="3", load=load)
    assert serving.response(serving.infer(1)).version == "1"
    leave.set()
    serving.loop.error_of(loading)
    assert serving.response(serving.infer(1)).version == "1"


@pytest.mark.parametrize(
    ("asked", "answers"),
    [("1", "1"), ("10", "10"), ("01", "1"), ("0010", "10"), ("0", "0"), ("00", "0")],
)
def test_a_version_that_is_named_answers_also_with_leading_zeros(
    serving: Serving, asked: str, answers: str
) -> None:
    for version in ("0", "1", "10"):
        serving.add_ready(version=version)
    assert serving.response(serving.infer(1, version=asked)).version == answers


@pytest.mark.parametrize("version", ["3", "x", "-1", "1.0", "²", " 1"])
def test_an_unknown_version_is_told_which_there_are(serving: Serving, version: str) -> None:
    serving.add_ready(version="1")
    serving.add_ready(version="2")
    error = error_now(serving.infer(1, version=version))
    assert isinstance(error, UnknownModel)
    assert "expected version 1 or 2" in str(error)


def test_an_unknown_model_is_told_which_there_are(serving: Serving) -> None:
    assert "expected one of none" in str(error_now(serving.infer(1, model="digits")))
    serving.add_ready("m")
    error = error_now(serving.infer(1, model="digits"))
    assert isinstance(error, UnknownModel)
    assert str(error) == "model: expected one of 'm'; got 'digits'"


def test_an_unknown_model_is_told_the_ready_ones_first_and_the_one_that_is_like_it(
    serving: Serving,
) -> None:
    broken = serving.add("broken", load=lambda report: 1 / 0)
    serving.loop.wait_for(broken.addErrback(lambda failure: None))
    for name in ("later", "m"):
        serving.add_ready(name)
    error = str(error_now(serving.infer(1, model="late")))
    assert error == (
        "model: expected one of 'later', 'm' (not ready: 'broken'); got 'late'; did you mean "
        "'later'?"
    )
    with pytest.raises(UnknownModel, match=r"/models/later/predict.*`load_at_start: \[later\]`"):
        serving.server.only_model()


def test_of_many_models_an_error_names_ten(serving: Serving) -> None:
    for number in range(12):
        serving.add_ready(f"m{number}")
    assert "'m9' and 2 more; got 'x'" in str(error_now(serving.infer(1, model="x")))


def test_a_long_unknown_name_does_not_fill_the_answer(serving: Serving) -> None:
    assert len(str(error_now(serving.infer(1, model="x" * 10_000)))) < 300


def test_the_only_model_is_found_without_a_name(serving: Serving) -> None:
    with pytest.raises(UnknownModel, match="none"):
        serving.server.only_model()
    serving.add_ready("m", "1")
    serving.add_ready("m", "2")
    assert serving.server.only_model() == "m"
    serving.add_ready("other")
    with pytest.raises(UnknownModel, match="'m', 'other'"):
        serving.server.only_model()


def test_a_version_cannot_be_there_twice(serving: Serving) -> None:
    serving.add_ready("m", "1")
    with pytest.raises(ConfigError, match="version 1 is there twice"):
        serving.add("m", "1")
    assert serving.values(serving.infer(1)) == [2]


def test_a_model_that_loads_says_what_it_is_doing(serving: Serving) -> None:
    entered, leave = Event(), Event()

    def load(progress: Progress) -> Any:
        progress("reading weights")
        entered.set()
        assert leave.wait(PATIENCE)
        raise ModelLoadError("no such file")

    loading = serving.add(load=load)
    assert serving.server.unready() == {"m/1": "loading: waiting to be loaded"}
    assert entered.wait(PATIENCE)
    serving.loop.step()
    assert serving.server.unready() == {"m/1": "loading: reading weights"}
    error = error_now(serving.infer(1))
    assert isinstance(error, ModelNotReady)
    assert str(error) == "model m/1 is not ready: loading: reading weights"
    assert error.retry_after >= 1
    leave.set()
    assert isinstance(serving.loop.error_of(loading), ModelLoadError)
    assert serving.progress == [("m/1", "reading weights"), ("m/1", "failed: no such file")]


def test_a_model_that_failed_to_load_keeps_its_reason_and_the_others_serve(
    serving: Serving,
) -> None:
    serving.loop.error_of(serving.add("broken", load=failing(ModelLoadError("no such file"))))
    serving.add_ready("m")
    assert serving.server.unready() == {"broken/1": "failed: no such file"}
    error = error_now(serving.infer(1, model="broken"))
    assert isinstance(error, ModelNotReady)
    assert "no such file" in str(error)
    assert serving.values(serving.infer(1)) == [2]


def test_nothing_is_unready_when_every_model_serves(serving: Serving) -> None:
    assert serving.server.unready() == {}
    serving.add_ready("m", "1")
    serving.add_ready("m", "2")
    assert serving.server.unready() == {}
    assert serving.progress[-1] == ("m/2", "ready, loaded in 0.0 s")
    assert [served.title for served in serving.server] == ["m/1", "m/2"]


def test_a_model_that_was_unloaded_says_so(serving: Serving) -> None:
    serving.add_ready()
    serving.loop.wait_for(serving.server.unload(serving.server.find("m")))
    error = error_now(serving.infer(1))
    assert isinstance(error, ModelNotReady)
    assert str(error) == "model m/1 is not ready: unloaded"


@pytest.mark.parametrize(
    "code", ["raise SystemExit(3)", "raise ValueError('odd')"], ids=["exits", "raises"]
)
def test_a_model_whose_module_cannot_be_imported_fails_to_load(
    serving: Serving, tmp_path: Path, code: str
) -> None:
    (tmp_path / "net.py").write_text(code)
    definition = ModelDefinition(model_spec(), "python", tmp_path, tmp_path, entry="net:Net")
    error = serving.loop.error_of(
        serving.add(load=lambda progress: load_model(definition, SETTINGS, progress))
    )
    assert isinstance(error, ModelLoadError)
    assert "model 'm' version 1: " in str(error)
    assert serving.server.find("m").state is ModelState.FAILED


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"z": rows(1)}, "expected inputs 'x'; got 'z'"),
        ({"x": rows(1), "z": rows(1)}, "expected inputs 'x'; got 'x', 'z'"),
        ({"x": rows(1).astype("<f8")}, r"input 'x': expected FP32\[-1,4\]; got FP64\[1,4\]"),
        ({"x": rows(1, width=3)}, r"expected FP32\[-1,4\]; got FP32\[1,3\]"),
        ({"x": rows(1)[0]}, r"expected FP32\[-1,4\]; got FP32\[4\]"),
        ({"x": rows()}, "expected at least 1 row; got 0"),
    ],
    ids=[
        "another name",
        "one too many",
        "another dtype",
        "another shape",
        "no row axis",
        "no rows",
    ],
)
def test_wrong_inputs_are_told_what_was_expected_and_what_came(
    serving: Serving, inputs: dict[str, Any], told: str
) -> None:
    serving.add_ready()
    error = error_now(serving.infer(inputs=inputs))
    assert isinstance(error, InvalidInput)
    with pytest.raises(InvalidInput, match=told):
        raise error


def test_inputs_must_have_as_many_rows_as_each_other(serving: Serving) -> None:
    two = model_spec(inputs=(model_spec().inputs[0], model_spec().outputs[0]))
    serving.add_ready(spec=two)
    error = error_now(serving.infer(inputs={"x": rows(1, 2), "y": rows(1)}))
    assert "input 'y': expected 2 rows, as in 'x'; got 1" in str(error)


@pytest.mark.parametrize("priority", [0, 1, 3, 4])
def test_a_priority_that_is_a_level_or_bulk_is_taken(serving: Serving, priority: int) -> None:
    serving.add_ready()
    assert serving.values(serving.infer(1, priority=priority)) == [2]


@pytest.mark.parametrize("priority", [5, 1000, -1, -3, -4])
def test_a_priority_that_is_no_level_is_refused(serving: Serving, priority: int) -> None:
    serving.add_ready()
    error = error_now(serving.server.infer("m", {"x": rows(1)}, "", Parameters(priority=priority)))
    assert isinstance(error, InvalidInput)
    assert str(error) == f"priority: expected 1 (the highest) to 3, or 4, bulk; got {priority}"


def test_what_the_queue_refuses_comes_as_a_failure_like_everything_else(serving: Serving) -> None:
    serving.add_ready(
        settings=SETTINGS.model_copy(update={"max_queue_rows": 4, "max_batch_size": 2})
    )
    waiting = serving.server.infer("m", {"x": rows(1, 2, 3, 4)})
    assert isinstance(error_now(serving.server.infer("m", {"x": rows(5)})), QueueFull)
    assert isinstance(error_now(serving.server.infer("m", {"x": rows(1, 2, 3, 4, 5)})), TooLarge)
    serving.loop.clock.advance(0)
    assert serving.values(waiting) == [2, 4, 6, 8]


def test_a_deadline_is_kept_while_the_model_is_stuck(serving: Serving) -> None:
    entered, leave = Event(), Event()

    def stuck(inputs: Any) -> dict[str, Any]:
        entered.set()
        assert leave.wait(PATIENCE)
        return {"y": inputs["x"]}

    serving.add_ready(predict=stuck)
    answer = serving.infer(1, deadline=serving.server.find("m").deadline(8.0))
    assert entered.wait(PATIENCE)
    serving.loop.clock.advance(8.0)
    assert isinstance(error_now(answer), DeadlineExceeded)
    leave.set()
    serving.loop.step()


def test_a_model_s_own_timeout_is_the_default_deadline(serving: Serving) -> None:
    serving.loop.clock.advance(5.0)
    serving.add_ready(settings=ModelSettings(device="cpu", timeout_ms=1500.0))
    served = serving.server.find("m")
    assert served.deadline() == 6.5
    assert served.deadline(0.25) == 5.25


def test_requests_of_a_model_share_batches_and_are_counted(serving: Serving) -> None:
    serving.add_ready()
    answers = [serving.server.infer("m", {"x": rows(value)}) for value in (1, 2, 3)]
    serving.loop.clock.advance(0)
    assert [serving.values(answer) for answer in answers] == [[2], [4], [6]]
    metrics = serving.server.metrics.model("m", "1")
    assert (metrics.batch_size.count, metrics.batch_size.total) == (1, 3)
    np.testing.assert_equal(metrics.flushes, {"idle": 1})
