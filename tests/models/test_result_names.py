"""Whatever a model returns is taken by name or in order, or refused with what to write."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from batcher.errors import ModelContractError
from batcher.models.result_names import named_outputs
from tests.support.models import model_spec, tensor

TWO = model_spec(outputs=(tensor("y"), tensor("z")))
Y, Z = np.ones((2, 4), "<f4"), np.zeros((2, 4), "<f4")
Named = namedtuple("Named", "z y")
Other = namedtuple("Other", "first second")
Half = namedtuple("Half", "z other")


@dataclass
class Result:
    z: Any
    y: Any
    loss: Any = None


class Explosive:
    """Stands for an output that nobody asked for: whoever touches it fails."""

    def __array__(self, *args: object, **kwargs: object) -> Any:
        raise AssertionError("an output that was not declared was converted")


@pytest.mark.parametrize(
    "result",
    [
        {"y": Y, "z": Z},
        {"z": Z, "y": Y, "hidden": Explosive()},
        MappingProxyType({"z": Z, "y": Y, "loss": None}),
        OrderedDict(z=Z, y=Y),
        Named(Z, Y),
        Result(Z, Y),
        SimpleNamespace(loss=None, z=Z, y=Y),
        (Y, Z),
        [Y, Z],
        Other(Y, Z),
    ],
    ids=lambda result: type(result).__name__,
)
def test_outputs_are_taken_by_name_or_in_order(result: Any) -> None:
    found, _ = named_outputs(result, TWO)
    assert found.keys() == {"y", "z"}
    assert found["y"] is Y
    assert found["z"] is Z


def test_what_is_left_out_is_known_by_name() -> None:
    _, left_out = named_outputs({"y": Y, "z": Z, "loss": None, "more": {"a": 1}}, TWO)
    assert left_out == ("loss", "more.a")


def test_an_output_within_another_mapping_is_named_with_a_dot() -> None:
    spec = model_spec(outputs=(tensor("head.y"), tensor("head.box.z")))
    result = {"head": {"y": Y, "box": Named(Z, 0)}, "rest": 1}
    assert named_outputs(result, spec)[0] == {"head.y": Y, "head.box.z": Z}


@pytest.mark.parametrize(
    "rows",
    [
        [{"y": 1, "z": 2}, {"z": 4, "y": 3}],
        [Named(2, 1), Named(4, 3)],
        ({"y": 1, "z": 2, "more": 0}, Result(4, 3)),
    ],
    ids=["mappings", "named tuples", "a tuple of both"],
)
def test_a_list_of_one_result_for_each_row_becomes_a_list_for_each_output(rows: Any) -> None:
    assert named_outputs(rows, TWO)[0] == {"y": [1, 3], "z": [2, 4]}


def test_in_a_list_of_results_a_row_may_be_an_exception_or_lack_an_output() -> None:
    error = ValueError("no")
    found, _ = named_outputs([{"y": 1, "z": 2}, error, {"y": 3}, 5], TWO)
    assert found["y"][:3] == [1, error, 3]
    assert str(found["z"][2]) == "model 'm': row 2: expected output 'z'; got 'y'"
    assert "got int" in str(found["y"][3])


@pytest.mark.parametrize(
    ("result", "shape"),
    [
        ([1.0, 2.0, 3.0], ()),
        ([1.0], ()),
        (["a"], ()),
        ([np.ones(4), np.ones(4)], (4,)),
        ([np.ones(4)], (4,)),
        ([[], [1.0]], (-1,)),
        ([ValueError("no")], (4,)),
    ],
    ids=repr,
)
def test_the_list_of_a_model_of_one_output_holds_its_rows(result: Any, shape: Any) -> None:
    spec = model_spec(outputs=(tensor("y", "FP32", shape),))
    assert named_outputs(result, spec)[0] == {"y": result}


@pytest.mark.parametrize("result", [[Y], (Y,), Y], ids=["a list", "a tuple", "itself"])
def test_an_array_with_an_axis_more_than_a_row_is_the_whole_output(result: Any) -> None:
    assert named_outputs(result, model_spec())[0]["y"] is Y


def test_a_structured_array_and_pytorchs_named_results_are_taken() -> None:
    array = np.zeros(2, [("z", "<f4"), ("y", "<i8")])
    assert named_outputs(array, TWO)[0]["y"].dtype.str == "<i8"
    found = torch.max(torch.tensor([[1.0, 5.0]]), dim=1)
    named, _ = named_outputs(found, TWO)
    assert [named["y"].item(), named["z"].item()] == [5.0, 1]


def coroutine() -> Any:
    async def run() -> None:
        """Do nothing."""

    return run()


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        (None, "expected outputs; got None: return a dict such as {'y': …, 'z': …}"),
        ({"y": Y, "z": None}, r"output 'z': expected FP32[-1,4]; got None"),
        (
            {"y": Y, "z": {"a": 1}},
            "declare its values as outputs in model.yaml, by the names 'z.a'",
        ),
        ((Y,), "expected 2 outputs; got 1"),
        ((Y, Z, Y), "got 3: values of a tuple have no names. List all of them in model.yaml, in"),
        ((Y, None, None), "expected 2 outputs; got 1"),
        (Y, "expected 2 outputs; got 1"),
        ((Y, None), "output 'z': expected FP32[-1,4]; got None"),
        (map(int, "12"), "got a map: return a dict"),
        ({0: Y, 1: Z}, "keys 0 (int), 1 (int): return a dict such as {'y': …, 'z': …}"),
        ({"y": Y, b"z": Z}, "got a mapping with the keys b'z' (bytes): return a dict"),
        ({1, 2}, "got a set: return a dict"),
        ((x for x in "ab"), "got a generator, and nobody steps through it"),
        (coroutine(), "got a coroutine, and nobody awaits it"),
        ({"y": coroutine(), "z": Z}, "output 'y': expected a value; got a coroutine"),
        ("ab", "expected 2 outputs; got 1"),
        ((Y, {"z": Z}), "got a tuple of mappings and of ndarray: return one dict such as {'y': …"),
        ([(1, 2), (3, 4)], "got a list of 2 tuples: each element is a tuple of 2 values, as rows"),
        ([(1, 2)] * 3, "got 3: each element is a tuple of 2 values, as rows are: return a dict"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_names_nothing_is_refused_with_what_to_write(result: Any, complaint: str) -> None:
    with pytest.raises(ModelContractError) as raised:
        named_outputs(result, TWO)
    assert complaint in str(raised.value)
    assert str(raised.value).startswith("model 'm'")


def test_a_named_tuple_that_has_some_of_the_names_is_not_taken_in_order() -> None:
    found, left_out = named_outputs(Half(Z, Y), TWO)
    assert found.keys() == {"z"}
    assert left_out == ("other",)


def test_for_postprocess_keys_that_are_no_texts_are_refused() -> None:
    with pytest.raises(ModelContractError, match=r"got a mapping with the keys 0 \(int\)"):
        named_outputs({0: Y}, TWO, is_raw=True)


def test_for_postprocess_every_value_with_a_name_is_taken_but_none() -> None:
    found, left_out = named_outputs({"raw": Y, "loss": None, "in": {"a": Z}}, TWO, is_raw=True)
    assert found == {"raw": Y, "in.a": Z}
    assert left_out == ()


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (Y, ["output_0"]),
        ((Y, None, Z), ["output_0", "output_2"]),
        ((Y, Z), ["y", "z"]),
    ],
    ids=["one value", "three values", "as many as there are outputs"],
)
def test_for_postprocess_values_without_names_are_numbered(result: Any, names: list[str]) -> None:
    assert list(named_outputs(result, TWO, is_raw=True)[0]) == names


def test_for_postprocess_a_list_that_may_be_one_of_rows_is_refused() -> None:
    with pytest.raises(ModelContractError, match="expected 2 outputs; got 3"):
        named_outputs([Y, Y, Y], TWO, is_raw=True)


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_mapping_that_is_wrapped_alone_is_the_mapping(kind: type) -> None:
    found, _ = named_outputs(kind([{"z": Z, "y": Y, "loss": None}]), TWO)
    assert found["y"] is Y
    assert found["z"] is Z
    of_one_row = kind([{"z": Z[0], "y": Y[0]}])
    assert [len(rows) for rows in named_outputs(of_one_row, TWO)[0].values()] == [1, 1]


@pytest.mark.parametrize("result", [(Y, Z, None), (Y, None, Z), (None, Y, Z)], ids=[2, 1, 0])
def test_none_in_a_tuple_is_left_out_where_the_others_are_the_outputs(result: Any) -> None:
    found, _ = named_outputs(result, TWO)
    assert found["y"] is Y
    assert found["z"] is Z
