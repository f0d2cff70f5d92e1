"""Requests and answers as values: copied, pickled, and made of what programs hand in."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from batcher.core.request import (
    BatchOutputs,
    InferenceRequest,
    InferenceResponse,
    OutputRows,
    Parameters,
    checked_parameters,
)
from batcher.errors import InvalidInput
from tests.support.models import rows


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
)
class TestCopies:
    def test_a_request_can_be_copied(self, copied: Any) -> None:
        parameters = Parameters(8.0, 1, "a")
        request = copied(InferenceRequest("m", "2", {"x": rows(1.0, 2.0)}, 2, parameters))
        assert (request.model, request.version, request.rows) == ("m", "2", 2)
        assert request.parameters == parameters
        assert np.array_equal(request.inputs["x"], rows(1.0, 2.0))

    def test_an_answer_is_copied_with_its_own_rows_alone(self, copied: Any) -> None:
        outputs = OutputRows(BatchOutputs({"y": rows(1.0, 2.0, 3.0)}), 1, 2)
        steps = [("a", 0.25, 0.5, 3)]
        answer = copied(InferenceResponse("m", "2", outputs, 0.25, 0.5, 3, steps=steps))
        assert (answer.model, answer.version) == ("m", "2")
        assert (answer.queue, answer.compute, answer.batch_size) == (0.25, 0.5, 3)
        assert answer.steps == steps
        assert np.array_equal(answer.outputs["y"], rows(2.0))
        assert list(answer.outputs) == ["y"]


def test_numbers_of_any_library_are_taken() -> None:
    deadline: Any = np.float32(2.5)
    priority: Any = np.int64(2)
    found = checked_parameters(Parameters(deadline, priority, "a"), 3)
    assert found == (2.5, 2, "a", "", "", False, "")
    assert (type(found.deadline), type(found.priority)) == (float, int)


@pytest.mark.parametrize(
    "values",
    [
        ("soon", 0),
        (float("nan"), 0),
        (None, 1.5),
        (None, "1"),
        (None, None),
        ([], 0),
        (None, 4),
        (None, -1),
    ],
)
def test_what_is_no_number_is_refused(values: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        checked_parameters(Parameters(*values), 3)
