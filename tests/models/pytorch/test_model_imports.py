"""`imports` in model.yaml: modules that are imported before the model is read."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batcher.errors import ConfigError, ModelLoadError
from tests.support.model_folders import Folders, answers

X = np.ones((2, 4), "f4")
NAMESPACE = "batcherimports"
LIBRARY = f"""
import torch

library = torch.library.Library("{NAMESPACE}", "FRAGMENT")
library.define("twice(Tensor x) -> Tensor")
library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
"""


class Twice(torch.nn.Module):
    """Calls an operator that PyTorch does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.batcherimports.twice(x)


def archives() -> dict[str, bytes]:
    """Return a module in each format, whose operator is registered no longer."""
    scope: dict[str, Any] = {}
    exec(LIBRARY, scope)
    files = {"torchscript": BytesIO(), "export": BytesIO()}
    torch.jit.save(torch.jit.script(Twice()), files["torchscript"])
    axes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(Twice(), (torch.ones(2, 4),), dynamic_shapes=axes)
    torch.export.save(program, files["export"])
    scope["library"]._destroy()
    return {name: file.getvalue() for name, file in files.items()}


@pytest.fixture(scope="module")
def saved() -> dict[str, bytes]:
    """The archives are made once: an export takes seconds."""
    return archives()


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("form", ["torchscript", "export"])
def test_an_operator_that_is_not_registered_is_named_with_the_setting_that_mends_it(
    folders: Folders, saved: dict[str, bytes], form: str, trusted: bool
) -> None:
    definition = folders.define(f"format: {form}\nfile: net.pt", {"net.pt": saved[form]})
    with pytest.raises(
        ModelLoadError, match=r"batcherimports::twice.*`imports: \[batcherimports\]`"
    ):
        folders.load(definition, trusted=trusted)


@pytest.mark.parametrize("form", ["torchscript", "export"])
def test_a_library_that_registers_operators_is_imported_by_its_name(
    folders: Folders,
    saved: dict[str, bytes],
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / f"operators_for_{form}.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    head = f"format: {form}\nfile: net.pt\nimports: [operators_for_{form}]"
    checked = folders.load(folders.define(head, {"net.pt": saved[form]}))
    try:
        assert answers(checked, x=X)["y"].tolist() == (X * 2).tolist()
    finally:
        sys.modules.pop(f"operators_for_{form}").library._destroy()


def test_a_module_that_cannot_be_imported_is_named(folders: Folders) -> None:
    source = "class Model:\n    def predict(self, inputs):\n        return {'y': inputs['x']}\n"
    definition = folders.python(source, head="\nimports: [not_there_at_all]")
    with pytest.raises(ModelLoadError, match=r"imports: expected modules.*got 'not_there_at_all'"):
        folders.load(definition)


def test_a_module_beside_the_model_can_be_imported(folders: Folders) -> None:
    predict = "return {'y': inputs['x'] * np.loaded}"
    source = f"class Model:\n    def predict(self, inputs):\n        {predict}\n"
    files = {"first.py": "import numpy\nnumpy.loaded = 3\n"}
    definition = folders.python(source, head="\nimports: [first]", files=files)
    try:
        assert answers(folders.load(definition), x=X)["y"].tolist() == (X * 3).tolist()
    finally:
        del np.loaded  # type: ignore[attr-defined]  # made by the model


@pytest.mark.parametrize("name", ["", "a b", "os;", "../x", "a..b", "1a"])
def test_what_is_no_name_of_a_module_is_refused(folders: Folders, name: str) -> None:
    with pytest.raises(ConfigError, match="imports"):
        folders.python("", head=f'\nimports: ["{name}"]')
