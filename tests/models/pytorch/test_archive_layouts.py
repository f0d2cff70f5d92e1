"""Layouts of exported programs: plain containers, and types that imported libraries vouch for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from batcher.errors import ModelLoadError
from batcher.models.pytorch.archive_layouts import layout_harm
from tests.support.model_folders import Folders, answers


class Answer(dict[str, Any]):
    """A mapping as a library of models returns it."""


class Reader(dict[str, Any]):
    """A mapping whose library reads the context by itself."""


@pytest.fixture(autouse=True, scope="module")  # optree, where it is, knows a type for good
def registered() -> Iterator[None]:
    """Register the types as a library does."""
    for kind, reads in ((Answer, None), (Reader, str)):
        pytree.register_pytree_node(
            kind,
            lambda value: (list(value.values()), list(value)),
            lambda values, names, kind=kind: kind(zip(names, values, strict=True)),
            serialized_type_name=f"{kind.__module__}.{kind.__name__}",
            to_dumpable_context=None if reads is None else json.dumps,
            from_dumpable_context=reads,
        )
    yield
    for kind in (Answer, Reader):
        pytree._deregister_pytree_node(kind)


class Net(torch.nn.Module):
    """Returns a type of the library."""

    def forward(self, x: torch.Tensor) -> Answer:
        return Answer(y=x * 2)


def layout(kind: str, context: str = '["y"]') -> str:
    """Return the layout of one tensor within a container."""
    leaf = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": kind, "context": context, "children_spec": [leaf]}])


def archive() -> bytes:
    """Return a program that returns a type of the library."""
    program = torch.export.export(
        Net(), (torch.ones(2, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    file = BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def test_a_type_of_an_imported_library_is_taken(folders: Folders) -> None:
    head = f"format: export\nfile: net.pt2\nimports: [{__name__}]"
    checked = folders.load(folders.define(head, {"net.pt2": archive()}))
    x = np.ones((3, 4), "f4")
    assert answers(checked, x=x)["y"].tolist() == (x * 2).tolist()


def test_the_same_type_is_refused_with_the_setting_that_mends_it(folders: Folders) -> None:
    definition = folders.define("format: export\nfile: net.pt2", {"net.pt2": archive()})
    with pytest.raises(ModelLoadError, match=r"Answer.*`imports`"):
        folders.load(definition)


@pytest.mark.parametrize(
    ("kind", "imports"),
    [
        (f"{__name__}.Answer", ()),
        (f"{__name__}.Answer", ("torch",)),
        (f"{__name__}.Answer", (__name__[:-1],)),  # a name that only begins alike
        (f"{__name__}.Reader", (__name__,)),
        (f"{__name__}.NotRegistered", (__name__,)),
        ("collections.namedtuple", ("collections",)),
    ],
)
def test_other_types_are_refused(kind: str, imports: tuple[str, ...]) -> None:
    assert kind in layout_harm(layout(kind), imports)


def test_the_context_of_an_imported_type_may_be_keys_alone() -> None:
    kind = f"{__name__}.Answer"
    assert layout_harm(layout(kind), (__name__.partition(".")[0],)) == ""
    assert layout_harm(layout(kind, '[{"module": "os"}]'), (__name__,))


@pytest.mark.parametrize("text", ["3", "[]", "[1, 3]", '[1, {"type": ["a"]}]', '[1, {"kind": 1}]'])
def test_what_is_no_layout_is_refused(text: str) -> None:
    assert layout_harm(text, (__name__,))


@pytest.mark.parametrize(
    ("name", "of_inputs", "of_outputs"),
    [
        ("input_ids", True, True),
        ("my-input 1.x", True, True),
        ("größe", True, True),
        ("a:b", False, True),
        ("a=exit()", False, True),
        ("a'", False, False),
        ('a"', False, False),
        ("a\\", False, False),
        ("a\n", False, False),
    ],
)
def test_keys_of_inputs_are_plain_words_and_keys_of_outputs_end_no_quotation(
    name: str, of_inputs: bool, of_outputs: bool
) -> None:
    text = layout("builtins.dict", json.dumps([name]))
    assert (layout_harm(text, ()) == "") is of_inputs
    assert (layout_harm(text, (), of_inputs=False) == "") is of_outputs
