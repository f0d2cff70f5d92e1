"""How `predict` of a class is called: with one mapping, or with each input by its name."""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest

import batcher
from batcher.errors import ModelLoadError
from batcher.models.plain_calls import note_of_both
from batcher.models.predict_calls import predict_of

INPUTS: Any = {"x": 1, "y": 2}


class Mapping:
    def predict(self, inputs: Any) -> Any:
        return inputs


class Several:
    def predict(self, y: int, x: int, scale: int = 3) -> Any:
        return x, y, scale


class OneNeeded:
    def predict(self, x: int, y: Any = None, k: int = 7) -> Any:
        return x, y, k


class NoneNeeded:
    def predict(self, y: Any = None, x: Any = None) -> Any:
        return x, y


class MappingAndMore:
    def predict(self, inputs: Any, x: int = 0, y: int = 0) -> Any:
        return inputs, x, y


class Open:
    def predict(self, x: int, **others: int) -> Any:
        return x, others


class Anything:
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


class One:
    def predict(self, x: Any) -> Any:
        return x


@batcher.model(inputs={"x": "FP32"})
class Declared:
    def predict(self, x: Any) -> Any:
        return x


class Annotated:
    def predict(self, x: FP32[4]) -> Any:  # type: ignore[name-defined]  # noqa: F821  # a text
        return x


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Mapping(), INPUTS),
        (Several(), (1, 2, 3)),
        (OneNeeded(), (1, 2, 7)),
        (NoneNeeded(), (1, 2)),
        (MappingAndMore(), (INPUTS, 0, 0)),
        (Anything(), ((INPUTS,), {})),
        (Open(), (INPUTS, {})),
    ],
)
def test_names_decide_where_they_are_those_of_the_inputs(model: Any, expected: Any) -> None:
    assert predict_of(model, ["x", "y"])(INPUTS) == expected


def test_several_names_of_inputs_leave_no_other_input_out() -> None:
    assert predict_of(OneNeeded(), ["x", "y", "k"])({"x": 1, "k": 2}) == (1, None, 2)
    with pytest.raises(ModelLoadError, match="inputs by their names, x, y, w; got x, y, k"):
        predict_of(OneNeeded(), ["x", "y", "w"])
    assert predict_of(OneNeeded(), ["x"])({"x": 1}) == ({"x": 1}, None, 7)


def unpacked(function: Any) -> Any:
    @wraps(function)
    def unpacking(self: Any, inputs: Any) -> Any:
        return function(self, inputs["x"], inputs.get("y"))

    return unpacking


def handed_on(function: Any) -> Any:
    @wraps(function)
    def handing(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return handing


@pytest.mark.parametrize("decorator", [unpacked, handed_on])
def test_a_decorator_says_how_it_is_called_unless_it_hands_everything_on(decorator: Any) -> None:
    class Decorated:
        predict = decorator(OneNeeded.predict)

    assert predict_of(Decorated(), ["x", "y"], ["y"])({"x": 1}) == (1, None, 7)


def test_several_arguments_take_what_preprocess_has_named() -> None:
    class Prepared(Several):
        preprocess = None

    assert predict_of(Prepared(), ["text"])(INPUTS) == (1, 2, 3)


@pytest.mark.parametrize(
    ("model", "expected"), [(One(), {"x": 1}), (Declared(), 1), (Annotated(), 1)]
)
def test_one_argument_is_the_mapping_unless_the_class_says_what_its_inputs_are(
    model: Any, expected: Any
) -> None:
    assert predict_of(model, ["x"])({"x": 1}) == expected


def test_what_takes_no_place_is_called_by_name() -> None:
    class Keywords:
        def predict(self, **inputs: Any) -> Any:
            return inputs

    class Keyword:
        def predict(self, *, x: Any, y: Any = 0) -> Any:
            return x, y

    class Places:
        def predict(self, *inputs: Any) -> Any:
            return inputs

    assert predict_of(Keywords(), ["x", "y"])(INPUTS) == INPUTS
    assert predict_of(Keyword(), ["x"])({"x": 1}) == (1, 0)
    assert predict_of(Places(), ["x", "y"])(INPUTS) == (INPUTS,)
    with pytest.raises(ModelLoadError, match="inputs by their names, a; got x"):
        predict_of(Keyword(), ["a"])


class Estimator:
    def fit(self, X: Any, y: Any) -> None: ...

    def predict(self, X: Any) -> Any:
        return X


def test_an_estimator_gets_the_array_of_its_one_input_and_is_refused_several() -> None:
    assert predict_of(Estimator(), ["x"])({"x": 1}) == 1
    with pytest.raises(ModelLoadError, match="expected one input, the array X; got x, y"):
        predict_of(Estimator(), ["x", "y"])


def test_other_names_are_refused_with_both_lists() -> None:
    with pytest.raises(ModelLoadError, match="inputs by their names, a, b; got y, x"):
        predict_of(Several(), ["a", "b"])


def test_a_model_with_predict_and_forward_says_which_one_is_served() -> None:
    class Both:
        def predict(self, inputs: Any) -> Any:
            return inputs

        def forward(self, inputs: Any) -> Any:
            return inputs

    assert note_of_both(Both(), "predict") == (
        "Both has predict and forward: predict is served, the server calls no forward",
    )
    assert note_of_both(object(), "predict") == ()
