"""Inputs of exported programs: by name where the names are known, by place where none is."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch

from batcher.config.model_file import ModelDefinition
from batcher.errors import ModelLoadError
from tests.support.model_folders import Folders, answers

A, B = torch.zeros(2, 3), torch.zeros(2, 3)
EACH = {0: torch.export.Dim.DYNAMIC}
OUTPUTS = "[{name: y, dtype: FP32, shape: [3]}]"
FIVE, TWO = np.full((4, 3), 5, "f4"), np.full((4, 3), 2, "f4")


class Two(torch.nn.Module):
    """Tells its inputs apart."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - 2 * b


class OfDict(torch.nn.Module):
    """Takes its inputs in a dict."""

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["a"] - 2 * batch["b"]


class OfPair(torch.nn.Module):
    """Takes its inputs in a list, after a constant."""

    def forward(self, factor: int, batch: list[torch.Tensor], mode: str) -> torch.Tensor:
        return batch[0] - factor * batch[1]


def by_place() -> torch.export.ExportedProgram:
    return torch.export.export(Two(), (A, B), dynamic_shapes=(EACH, EACH))


def by_keyword() -> torch.export.ExportedProgram:
    axes = {"a": EACH, "b": EACH}
    return torch.export.export(Two(), (), {"a": A, "b": B}, dynamic_shapes=axes)


def by_keyword_turned() -> torch.export.ExportedProgram:
    axes = {"b": EACH, "a": EACH}
    return torch.export.export(Two(), (), {"b": B, "a": A}, dynamic_shapes=axes)


def mixed() -> torch.export.ExportedProgram:
    axes = {"a": EACH, "b": EACH}
    return torch.export.export(Two(), (A,), {"b": B}, dynamic_shapes=axes)


def in_a_dict() -> torch.export.ExportedProgram:
    axes = ({"a": EACH, "b": EACH},)
    return torch.export.export(OfDict(), ({"a": A, "b": B},), dynamic_shapes=axes)


def in_a_list() -> torch.export.ExportedProgram:
    axes = (None, [EACH, EACH], None)
    return torch.export.export(OfPair(), (2, [A, B], "sum"), dynamic_shapes=axes)


def define(
    folders: Folders, program: torch.export.ExportedProgram, *names: str, version: str = "1"
) -> ModelDefinition:
    file = BytesIO()
    torch.export.save(program, file)
    inputs = ", ".join(f"{{name: {name}, dtype: FP32, shape: [3]}}" for name in names)
    files: dict[str, str | bytes] = {"net.pt2": file.getvalue()}
    head = "format: export\nfile: net.pt2"
    return folders.define(head, files, f"[{inputs}]", OUTPUTS, version=version)


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("export", [by_place, by_keyword, by_keyword_turned, mixed, in_a_dict])
def test_inputs_go_by_name_in_whatever_order_model_yaml_lists_them(
    folders: Folders,
    export: Callable[[], torch.export.ExportedProgram],
    names: tuple[str, str],
    trusted: bool,
) -> None:
    checked = folders.load(define(folders, export(), *names), trusted=trusted)
    values = {"a": FIVE, "b": TWO}
    for rows in (1, 4):
        found = answers(checked, **{name: values[name][:rows] for name in names})
        np.testing.assert_array_equal(found["y"], np.full((rows, 3), 1, "f4"))


@pytest.mark.parametrize("export", [by_place, by_keyword, in_a_list])
def test_inputs_of_other_names_go_by_place_and_both_orders_are_told(
    folders: Folders, export: Callable[[], torch.export.ExportedProgram]
) -> None:
    checked = folders.load(define(folders, export(), "p", "q"))
    assert answers(checked, p=FIVE, q=TWO)["y"][0, 0] == 1
    (told,) = [text for text in folders.progress if text.startswith("note: the order")]
    assert "gets p, q" in told
    assert "forward(" in told


def test_nothing_is_told_where_names_and_order_are_those_of_the_program(folders: Folders) -> None:
    folders.load(define(folders, by_place(), "a", "b"))
    assert not [text for text in folders.progress if text.startswith("note: ")]


@pytest.mark.parametrize("names", [("b", "c"), ("c", "a"), ("a",), ("a", "b", "c")])
def test_a_mixture_of_names_is_refused_with_both_lists(
    folders: Folders, names: tuple[str, ...]
) -> None:
    with pytest.raises(ModelLoadError, match=rf"forward\(a, b\).*lists {', '.join(names)}\."):
        folders.load(define(folders, by_place(), *names))


def test_an_input_whose_name_is_not_the_programs_may_stand_at_its_place(folders: Folders) -> None:
    checked = folders.load(define(folders, by_place(), "a", "other"))
    assert answers(checked, a=FIVE, other=TWO)["y"][0, 0] == 1
    assert [text for text in folders.progress if "gets a, other" in text]


class Named(torch.nn.Module):
    """Names its outputs as no Python variable is named."""

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"my-out": x * 2, "y": x + 1}


def test_an_output_whose_name_has_a_dash_is_served_without_trust(folders: Folders) -> None:
    program = torch.export.export(Named(), (A,), dynamic_shapes=(EACH,))
    file = BytesIO()
    torch.export.save(program, file)
    definition = folders.define(
        "format: export\nfile: net.pt2",
        {"net.pt2": file.getvalue()},
        "[{name: x, dtype: FP32, shape: [3]}]",
        "[{name: my-out, dtype: FP32, shape: [3]}, {name: y, dtype: FP32, shape: [3]}]",
    )
    found = answers(folders.load(definition), x=FIVE)
    assert (found["my-out"][0, 0], found["y"][0, 0]) == (10, 6)
