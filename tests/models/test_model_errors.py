"""Which errors a model may raise as what they are, and what clients are told of all others."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from batcher import errors
from batcher.core.spec import Array
from batcher.errors import (
    BatcherError,
    DeviceLost,
    InvalidInput,
    KnownToFail,
    ModelContractError,
    ModelError,
    NoRowsPrepared,
    OutOfMemory,
    QueueFull,
    WorkerLost,
)
from batcher.models.model_errors import allowed_from_model, model_error
from batcher.models.protocol import PartialOutputs
from tests.support.models import RecordingModel, checked, double, rows

ALLOWED = {
    InvalidInput,
    ModelError,
    ModelContractError,
    NoRowsPrepared,
    OutOfMemory,
    DeviceLost,
}
ALL = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BatcherError)
]


@pytest.mark.parametrize("kind", ALL)
def test_a_model_says_something_of_the_request_or_of_itself_and_nothing_of_the_server(
    kind: type[BatcherError],
) -> None:
    error = kind("text")
    found = allowed_from_model(error)
    if kind in ALLOWED:
        assert found is error
    else:
        assert type(found) is ModelError
        assert str(found) == f"the model failed: batcher.errors.{kind.__name__}: text"
        assert found.__cause__ is error


@pytest.mark.parametrize(
    "error", [WorkerLost("gone", begun=False), QueueFull("full"), KnownToFail("before")], ids=repr
)
def test_what_a_model_may_not_raise_is_an_error_of_the_model(error: BatcherError) -> None:
    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise error

    with pytest.raises(ModelError, match=str(error)) as raised:
        checked(RecordingModel(predict=predict)).predict(lambda allocate: {"x": rows(1)}, 1)
    assert type(raised.value) is ModelError


def test_nor_may_it_stand_in_a_row_s_place() -> None:
    class Partial(RecordingModel):
        def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            return PartialOutputs(
                double(inputs),
                {0: WorkerLost("gone", begun=False), 1: InvalidInput("dark"), 2: KeyError(1)},
            )

    _, failed = checked(Partial()).predict(lambda allocate: {"x": rows(1, 2, 3)}, 3)
    assert [type(failed[row]) for row in range(3)] == [ModelError, InvalidInput, KeyError]


def test_a_long_message_is_told_in_part() -> None:
    told = str(model_error(ValueError("long" * 1_000_000)))
    assert told.startswith("the model failed: ValueError: longlong")
    assert len(told) <= 4000


@pytest.mark.parametrize(
    ("hint", "value"),
    [("code", b"bad"), ("code", 7), ("code", "\ud800"), ("http_status", "422"), ("http_status", 7)],
)
def test_an_error_whose_hints_no_answer_can_carry_is_an_error_of_the_model(
    hint: str, value: object
) -> None:
    error = InvalidInput("dark")
    setattr(error, hint, value)
    assert type(allowed_from_model(error)) is ModelError
