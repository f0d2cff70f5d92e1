"""Inputs reach the parameters that have their names, whatever their order in `model.yaml`."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch

from batcher.config.model_file import ModelDefinition
from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from tests.support.model_folders import Folders, answers

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

OUTPUTS = "[{name: y, dtype: FP32, shape: [1]}]"


class Minus(torch.nn.Module):
    """Tells its arguments apart."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - b


def inputs_of(*names: str) -> str:
    return f"[{', '.join(f'{{name: {name}, dtype: FP32, shape: [1]}}' for name in names)}]"


def python(
    folders: Folders, *names: str, signature: str = "a, b", body: str = "a - b"
) -> ModelDefinition:
    source = (
        "class Model(torch.nn.Module):\n"
        f"    def forward(self, {signature}):\n        return {body}\n"
    )
    return folders.python(source, inputs=inputs_of(*names), outputs=OUTPUTS)


def scripted(folders: Folders, *names: str) -> ModelDefinition:
    return script(folders, torch.jit.script(Minus()), *names)


def traced(folders: Folders, *names: str) -> ModelDefinition:
    example = (torch.zeros(2, 1), torch.zeros(2, 1))
    return script(folders, torch.jit.trace(Minus(), example), *names)


def script(folders: Folders, module: torch.jit.ScriptModule, *names: str) -> ModelDefinition:
    file = BytesIO()
    torch.jit.save(module, file)
    head, files = "format: torchscript\nfile: net.pt", {"net.pt": file.getvalue()}
    return folders.define(head, files, inputs=inputs_of(*names), outputs=OUTPUTS)


def one(number: float) -> Array:
    return np.array([[number]], "<f4")


every_kind = pytest.mark.parametrize("make", [python, scripted, traced])


@every_kind
def test_names_of_parameters_decide_over_the_order(folders: Folders, make: object) -> None:
    for names in (("a", "b"), ("b", "a")):
        checked = folders.load(make(folders, *names))  # type: ignore[operator]  # see `every_kind`
        assert answers(checked, a=one(5), b=one(3))["y"].tolist() == [[2]]
    assert "note: inputs go by their names to forward(a, b); model.yaml lists b, a" in (
        folders.progress
    )


@every_kind
def test_other_names_go_in_their_order_and_a_note_shows_both(
    folders: Folders, make: object
) -> None:
    checked = folders.load(make(folders, "p", "q"))  # type: ignore[operator]  # see `every_kind`
    assert answers(checked, p=one(5), q=one(3))["y"].tolist() == [[2]]
    note = "note: the order of inputs counts: forward(a, b) gets p, q, in this order"
    assert note in folders.progress


@every_kind
@pytest.mark.parametrize(
    "names", [("b", "q"), ("p", "a"), ("a",), ("p",), ("a", "b", "c"), ("p", "q", "r")]
)
def test_names_that_leave_it_open_are_refused_with_both_orders(
    folders: Folders, make: object, names: tuple[str, ...]
) -> None:
    definition = make(folders, *names)  # type: ignore[operator]  # see `every_kind`
    with pytest.raises(
        ModelLoadError, match=rf"forward\(a, b\); model.yaml lists {', '.join(names)}"
    ):
        folders.load(definition)


def test_a_name_at_the_place_of_its_parameter_lets_others_be_of_any_name(folders: Folders) -> None:
    checked = folders.load(python(folders, "a", "other"))
    assert answers(checked, a=one(5), other=one(3))["y"].tolist() == [[2]]


@pytest.mark.parametrize(
    "signature",
    ["a, *, b", "a, c=None, b=None", "a, c=None, *, b", "b=None, c=None, a=None", "b, /, a"],
)
def test_parameters_may_be_keywords_or_left_out(folders: Folders, signature: str) -> None:
    for names in (("a", "b"), ("b", "a")):
        checked = folders.load(python(folders, *names, signature=signature))
        assert answers(checked, a=one(5), b=one(3))["y"].tolist() == [[2]]


@pytest.mark.parametrize(
    ("signature", "body"),
    [("*inputs", "inputs[0] - inputs[1]"), ("first, *rest", "first - rest[0]")],
)
def test_a_forward_of_any_inputs_gets_them_in_order(
    folders: Folders, signature: str, body: str
) -> None:
    checked = folders.load(python(folders, "p", "q", signature=signature, body=body))
    assert answers(checked, p=one(5), q=one(3))["y"].tolist() == [[2]]
    (note,) = [line for line in folders.progress if line.startswith("note: ")]
    assert note.startswith("note: the order of inputs counts: forward")
    assert note.endswith(" gets p, q, in this order")


def test_a_forward_of_named_inputs_alone_gets_all_by_name(folders: Folders) -> None:
    definition = python(folders, "b", "a", signature="**inputs", body='inputs["a"] - inputs["b"]')
    assert answers(folders.load(definition), a=one(5), b=one(3))["y"].tolist() == [[2]]


CALLS = {
    "another order": "def __call__(self, b, a): return super().__call__(a, b)",
    "names of its own": "def __call__(self, a=None, *, b): return super().__call__(a, b=b)",
    "by keyword alone": "def __call__(self, **inputs): return super().__call__(**inputs)",
    "passes all on": "def __call__(self, *all, **named): return super().__call__(*all, **named)",
}
"""Own methods `__call__` of a module whose `forward` takes `a, b`."""


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_the_names_that_a_class_s_own_call_takes_decide(
    folders: Folders, call: str, names: tuple[str, str]
) -> None:
    source = f"""
class Model(torch.nn.Module):
    def forward(self, a, b):
        return a - b
    {CALLS[call]}
"""
    definition = folders.python(source, inputs=inputs_of(*names), outputs=OUTPUTS)
    checked = folders.load(definition)
    assert answers(checked, a=one(5), b=one(3))["y"].tolist() == [[2]]


def test_names_of_no_parameter_go_in_the_order_of_the_class_s_own_call(folders: Folders) -> None:
    source = f"""
class Model(torch.nn.Module):
    def forward(self, a, b):
        return a - b
    {CALLS["another order"]}
"""
    checked = folders.load(folders.python(source, inputs=inputs_of("p", "q"), outputs=OUTPUTS))
    assert answers(checked, p=one(5), q=one(3))["y"].tolist() == [[-2]]
    assert (
        "note: the order of inputs counts: __call__(b, a) gets p, q, in this order"
        in folders.progress
    )


@pytest.mark.parametrize(
    "made",
    [
        "torch.jit.script(Net())",
        "torch.compile(Net(), backend='eager')",
        "torch.optim.swa_utils.AveragedModel(Net())",
        "type('Own', (torch.nn.DataParallel,), {})(Net())",
    ],
)
def test_the_names_of_a_module_in_a_wrapper_of_pytorch_decide(folders: Folders, made: str) -> None:
    source = f"""
class Net(torch.nn.Module):
    def forward(self, a, b):
        return a - b

def make():
    return {made}
"""
    definition = folders.python(
        source, entry="code:make", inputs=inputs_of("b", "a"), outputs=OUTPUTS
    )
    checked = folders.load(definition)
    assert answers(checked, a=one(5), b=one(3))["y"].tolist() == [[2]]


def test_a_decorator_with_parameters_of_its_own_is_what_is_called(folders: Folders) -> None:
    source = """
import functools

def swapped(function):
    @functools.wraps(function)
    def call(self, b, a):
        return function(self, a, b)
    return call

class Model(torch.nn.Module):
    @swapped
    def forward(self, a, b):
        return a - b
"""
    for names in (("a", "b"), ("b", "a")):
        checked = folders.load(folders.python(source, inputs=inputs_of(*names), outputs=OUTPUTS))
        assert answers(checked, a=one(5), b=one(3))["y"].tolist() == [[2]]


def test_further_arguments_of_any_name_go_by_name(folders: Folders) -> None:
    signature, body = "a, **others", "a - others['b']"
    for names in (("a", "b"), ("b", "a")):
        checked = folders.load(python(folders, *names, signature=signature, body=body))
        assert answers(checked, a=one(5), b=one(3))["y"].tolist() == [[2]]


class OfDict(torch.nn.Module):
    """Takes its inputs in a dict, beside a number."""

    def forward(self, batch: dict[str, torch.Tensor], factor: int = 1) -> torch.Tensor:
        return factor * (batch["a"] - batch["b"])


class OfList(torch.nn.Module):
    """Takes its inputs in a list."""

    def forward(self, batch: list[torch.Tensor]) -> torch.Tensor:
        return batch[0] - batch[1]


def test_a_parameter_that_is_a_dict_gets_all_inputs_by_their_names(folders: Folders) -> None:
    hint = "dict[str, torch.Tensor]"
    made = [
        python(folders, "b", "a", signature=f"batch: {hint}", body="batch['a'] - batch['b']"),
        python(folders, "b", "a", signature=f"batch: '{hint}'", body="batch['a'] - batch['b']"),
        script(folders, torch.jit.script(OfDict()), "b", "a"),
    ]
    for definition in made:
        checked = folders.load(definition)
        assert answers(checked, a=one(5), b=one(3))["y"].tolist() == [[2]]


def test_a_parameter_that_is_a_list_gets_several_inputs_in_their_order(folders: Folders) -> None:
    signature, body = "batch: list[torch.Tensor]", "batch[0] - batch[1]"
    for made in ("python", "script"):
        if made == "python":
            definition = python(folders, "p", "q", signature=signature, body=body)
        else:
            definition = script(folders, torch.jit.script(OfList()), "p", "q")
        checked = folders.load(definition)
        assert answers(checked, p=one(5), q=one(3))["y"].tolist() == [[2]]
        note = "note: the order of inputs counts: forward(batch) gets p, q, in this order"
        assert note in folders.progress
        folders.progress.clear()


def test_one_parameter_of_no_known_kind_for_several_inputs_is_refused_with_the_mend(
    folders: Folders,
) -> None:
    definition = python(folders, "a", "b", signature="batch", body="batch['a']")
    with pytest.raises(
        ModelLoadError, match=r"write `batch: dict\[str, torch.Tensor\]` in forward"
    ):
        folders.load(definition)
