"""A `torch.nn.Module` whose `preprocess` changes what clients send into what `forward` takes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from batcher.errors import ModelContractError, ModelLoadError
from batcher.models.blank_rows import WarmupBatch
from tests.support.model_folders import FLOATS, Folders, answers, floats

TEXT = "[{name: text, dtype: BYTES, shape: []}]"
PICTURE = "[{name: x, dtype: UINT8, shape: [8, 8, 3]}]"


def module(forward: str, preprocess: str) -> str:
    """Return the source of a module with the body of `preprocess`, and `forward` as it stands."""
    return (
        "class Model(torch.nn.Module):\n    def preprocess(self, values):\n"
        f"        {preprocess}\n\n    {forward}\n"
    )


def answer(folders: Folders, source: str, sent: dict[str, Any], **more: Any) -> Any:
    """Load a model, and return the output `y` for what its `preprocess` makes of `sent`."""
    loaded = folders.load(folders.python(source, **more))
    assert loaded.model.preprocess is not None
    return answers(loaded, **loaded.model.preprocess(sent))["y"]


def test_pictures_become_floats_with_channels_first(folders: Folders) -> None:
    source = module(
        "def forward(self, x):\n        return x.mean((2, 3))",
        'return {"x": np.moveaxis(values["x"], 3, 1).astype("f4") / 255}',
    )
    outputs = "[{name: y, dtype: FP32, shape: [3]}]"
    sent = np.full((2, 8, 8, 3), 255, "u1")
    found = answer(folders, source, {"x": sent}, inputs=PICTURE, outputs=outputs)
    np.testing.assert_allclose(found, np.ones((2, 3)))


def test_one_text_becomes_two_inputs_under_the_names_of_forward(folders: Folders) -> None:
    source = module(
        "def forward(self, ids, mask):\n        return (ids * mask).sum(1)",
        """texts = [list(text) for text in values["text"]]
        ids = np.zeros((len(texts), 5), "i8")
        for row, text in zip(ids, texts):
            row[: len(text)] = text
        return {"mask": (ids > 0).astype("i8"), "ids": ids}""",
    )
    outputs = "[{name: y, dtype: INT64, shape: []}]"
    sent = {"text": np.array([b"ab", b"c"], object)}
    found = answer(folders, source, sent, inputs=TEXT, outputs=outputs)
    assert found.tolist() == [ord("a") + ord("b"), ord("c")]


def test_two_inputs_may_become_one(folders: Folders) -> None:
    source = module(
        "def forward(self, both):\n        return both",
        'return {"both": values["a"] + values["b"]}',
    )
    inputs = "[{name: a, dtype: FP32, shape: [4]}, {name: b, dtype: FP32, shape: [4]}]"
    found = answer(folders, source, {"a": floats(), "b": floats()}, inputs=inputs)
    np.testing.assert_array_equal(found, floats() * 2)


@pytest.mark.parametrize(
    ("forward", "names"),
    [
        ("def forward(self, first, second)", ("second", "first")),
        ("def forward(self, first, *, second)", ("second", "first")),
        ("def forward(self, first, second, third=None)", ("second", "first")),
    ],
    ids=["in another order", "by keyword alone", "with a default"],
)
def test_arrays_go_to_the_parameters_of_their_names(
    folders: Folders, forward: str, names: tuple[str, str]
) -> None:
    source = module(
        f"{forward}:\n        return first - 2 * second",
        f'return {{"{names[0]}": values["x"] * 10, "{names[1]}": values["x"]}}',
    )
    np.testing.assert_array_equal(
        answer(folders, source, {"x": floats()}), floats() - 20 * floats()
    )


def test_names_that_are_no_parameters_come_in_the_order_of_the_hook(folders: Folders) -> None:
    source = module(
        "def forward(self, *tensors):\n        return tensors[0] - 2 * tensors[1]",
        'return {"z": values["x"] * 10, "a": values["x"]}',
    )
    np.testing.assert_array_equal(answer(folders, source, {"x": floats()}), floats() * 8)


def test_inputs_that_keep_their_names_come_in_the_order_of_the_specification(
    folders: Folders,
) -> None:
    source = module(
        "def forward(self, left, right):\n        return left - 2 * right",
        'return {"b": values["b"], "a": values["a"]}',
    )
    inputs = "[{name: a, dtype: FP32, shape: [4]}, {name: b, dtype: FP32, shape: [4]}]"
    found = answer(folders, source, {"a": floats(), "b": floats()}, inputs=inputs)
    np.testing.assert_array_equal(found, -floats())


def test_names_of_which_some_are_parameters_at_other_places_are_refused(folders: Folders) -> None:
    source = module(
        "def forward(self, ids, mask):\n        return ids * mask",
        'return {"attention": values["x"], "ids": values["x"]}',
    )
    with pytest.raises(
        ModelLoadError,
        match=r"module takes, forward\(ids, mask\); preprocess gives attention, ids\. Give each",
    ):
        folders.load(folders.python(source))


def test_a_change_of_dtype_under_the_name_of_a_bf16_input_is_no_bf16(folders: Folders) -> None:
    source = module(
        "def forward(self, x):\n        return x", 'return {"x": values["x"].astype("f4")}'
    )
    inputs = "[{name: x, dtype: BF16, shape: [4]}]"
    found = answer(folders, source, {"x": np.ones((1, 4), "<u2")}, inputs=inputs)
    np.testing.assert_array_equal(found, np.ones((1, 4)))


def test_a_module_that_would_get_text_is_refused_with_the_mend(folders: Folders) -> None:
    source = "class Model(torch.nn.Module):\n    def forward(self, text):\n        return text\n"
    with pytest.raises(ModelLoadError, match=r"'text': expected a dtype.*got BYTES.*`preprocess`"):
        folders.load(folders.python(source, inputs=TEXT), warmup=False)


def test_a_module_that_would_return_text_is_refused_with_the_mend(folders: Folders) -> None:
    source = "class Model(torch.nn.Module):\n    def forward(self, x):\n        return x\n"
    with pytest.raises(ModelLoadError, match=r"'text': expected a dtype.*got BYTES.*`postprocess`"):
        folders.load(folders.python(source, outputs=TEXT), warmup=False)


def test_text_that_preprocess_leaves_for_a_module_is_named(folders: Folders) -> None:
    source = module("def forward(self, text):\n        return text", "return values")
    loaded = folders.load(folders.python(source, inputs=TEXT), warmup=False)
    with pytest.raises(ModelContractError, match="preprocess: expected numbers for a module; got"):
        answers(loaded, text=np.array([b"a"], object))


def test_the_operators_of_a_module_are_counted_behind_its_preprocess(folders: Folders) -> None:
    source = module(
        "def forward(self, x):\n        for _ in range(30): x = x + 1\n        return x",
        'return {"x": np.zeros((len(values["text"]), 4), "f4")}',
    )
    model = folders.load(folders.python(source, inputs=TEXT, outputs=FLOATS.format("y"))).model
    assert model.operators(WarmupBatch(model, 1).inputs()) == 30
    # A module with `preprocess` cannot be compiled, so no hint advises it.
    assert not any("hint" in text for text in folders.progress)


def test_counting_operators_does_not_import_the_compiler(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # to import it is an error now
    source = "class Model(torch.nn.Module):\n    def forward(self, x): return x * 2\n"
    model = folders.load(folders.python(source)).model
    assert model.operators(WarmupBatch(model, 1).inputs()) == 1
