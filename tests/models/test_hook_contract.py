"""What hooks must return, and what their callers learn of a breach."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from batcher.core.ragged import ragged
from batcher.core.request import BatchOutputs, OutputRows
from batcher.errors import InvalidInput, ModelContractError, ModelError, QueueFull
from batcher.models.hook_contract import (
    common_rows,
    own_copy,
    run_postprocess,
    run_preprocess,
)
from tests.support.models import model_spec, rows, tensor


def test_preprocess_may_change_names_and_the_number_of_rows() -> None:
    def hook(inputs: Any) -> Any:
        return {"z": [*inputs["x"], *inputs["x"]]}

    prepared, count = run_preprocess(hook, {"x": rows(1)}, model_spec())
    assert (list(prepared), count, prepared["z"].shape) == (["z"], 2, (2, 4))


def test_preprocess_may_write_into_its_inputs_which_nobody_else_has() -> None:
    def hook(inputs: Any) -> Any:
        inputs["x"] += 1
        inputs["z"] = inputs.pop("x")
        return inputs

    sent = {"x": rows(1)}
    sent["x"].flags.writeable = False  # as a view of a body
    prepared, _ = run_preprocess(hook, sent, model_spec())
    assert (prepared["z"] == rows(1) + 1).all()
    assert list(sent) == ["x"]
    assert (sent["x"] == rows(1)).all()


def test_postprocess_may_set_outputs_in_the_mapping_that_it_gets() -> None:
    def hook(outputs: Any) -> Any:
        outputs["y"] = outputs["y"] * 2
        outputs["y"] += 1
        return outputs

    batch = BatchOutputs({"y": rows(1, 2, 3)})
    promised = run_postprocess(hook, OutputRows(batch, 1, 2), model_spec(), 1)
    assert (promised["y"] == rows(2) * 2 + 1).all()


UNEVEN = "model 'm': preprocess: expected arrays of the same number of rows, at least 1; got "


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "model 'm': preprocess: expected a mapping of name to array; got NoneType"),
        (
            {0: [1]},
            "model 'm': preprocess: expected a mapping of name to array; got the keys 0 (int)",
        ),
        ({}, f"{UNEVEN}none"),
        ({"x": 1.0}, f"{UNEVEN}arrays of 0 rows"),
        ({"x": rows(1), "z": rows(1, 2)}, f"{UNEVEN}arrays of 1, 2 rows"),
        (
            {"ids": [[1, 2], [3]]},
            "model 'm': preprocess: 'ids': expected rows of one shape; got rows of unequal "
            "lengths: pad them, or name 'ids' with a `pad`, below `prepared` in model.yaml or in "
            "`@batcher.model(prepared=…)`",
        ),
        (
            {"x": np.array(["text"], object)},
            "model 'm': 'x' from preprocess: expected elements that are bytes; got str:"
            " write `.encode()` at each text",
        ),
    ],
    ids=["no mapping", "numbers", "nothing", "a scalar", "uneven", "unequal rows", "text"],
)
def test_a_preprocess_that_breaks_the_contract_is_named_with_what_it_returned(
    returned: Any, message: str
) -> None:
    with pytest.raises(ModelContractError) as raised:
        run_preprocess(lambda _: returned, {"x": rows(1)}, model_spec())
    assert str(raised.value) == message


def test_rows_of_what_is_padded_may_have_unequal_lengths_and_one_dtype() -> None:
    padded = replace(model_spec(), prepared=(tensor("ids", "INT64", (-1,), pad=0),))
    hook = {"ids": [np.arange(2), np.arange(3)]}
    prepared, count = run_preprocess(lambda _: hook, {"x": rows(1)}, padded)
    assert ([row.tolist() for row in prepared["ids"]], count) == ([[0, 1], [0, 1, 2]], 2)
    mixed = {"ids": [np.arange(2), np.arange(3.0)]}
    with pytest.raises(ModelContractError, match=r"one dtype .* float64 with 1 axes and int64"):
        run_preprocess(lambda _: mixed, {"x": rows(1)}, padded)


def test_of_what_postprocess_returns_the_promised_outputs_are_the_answer() -> None:
    def hook(outputs: Any) -> Any:
        return {"y": outputs["raw"], "more": 1}

    assert list(run_postprocess(hook, {"raw": rows(1, 2)}, model_spec(), rows=2)) == ["y"]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([rows(1), 2], "model 'm': postprocess: expected 1 outputs; got 2"),
        ({}, "model 'm': postprocess: expected output 'y'; got none"),
        ({"y": rows(1)}, "model 'm': postprocess: 2 rows in, 1 rows out in output 'y'"),
    ],
    ids=["no mapping", "nothing", "a row less"],
)
def test_a_postprocess_that_breaks_the_contract_is_named_with_what_it_returned(
    returned: Any, message: str
) -> None:
    with pytest.raises(ModelContractError) as raised:
        run_postprocess(lambda _: returned, {"y": rows(1, 2)}, model_spec(), rows=2)
    assert str(raised.value) == message


def test_numbers_must_be_finite_only_where_finite_outputs_are_wanted() -> None:
    def hook(outputs: Any) -> Any:
        return {"y": outputs["y"] * np.nan}

    assert np.isnan(run_postprocess(hook, {"y": rows(1)}, model_spec(), rows=1)["y"]).all()
    with pytest.raises(ModelContractError, match="expected finite numbers in output 'y'"):
        run_postprocess(hook, {"y": rows(1)}, model_spec(), rows=1, finite_outputs=True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidInput("dark"), InvalidInput),
        (QueueFull("full"), ModelError),
        (KeyError("labels"), ModelError),
        (SystemExit(3), ModelError),
    ],
    ids=repr,
)
def test_a_hook_raises_what_a_model_may_raise_and_nothing_of_the_server(
    error: BaseException, kind: type[BaseException]
) -> None:
    def hook(values: Any) -> Any:
        raise error

    with pytest.raises(kind) as raised:
        run_preprocess(hook, {"x": rows(1)}, model_spec())
    assert type(raised.value) is kind
    assert raised.value is error or raised.value.__cause__ is error


@pytest.mark.parametrize(
    ("arrays", "count"),
    [
        ({}, 0),
        ({"x": np.array(1.0)}, 0),
        ({"x": rows(1, 2), "z": np.zeros(2)}, 2),
        ({"x": rows(1, 2), "z": np.zeros(3)}, 0),
    ],
    ids=["nothing", "a scalar", "even", "uneven"],
)
def test_rows_are_common_where_every_array_has_as_many(arrays: Any, count: int) -> None:
    assert common_rows(arrays) == count


def test_a_hook_that_writes_into_ragged_rows_writes_into_its_own() -> None:
    sent = ragged([np.ones(2), np.ones(3)])
    own_copy({"x": sent})["x"][0][:] = 7
    assert [row.tolist() for row in sent] == [[1, 1], [1, 1, 1]]
