"""Modules that a model's code puts into `sys.modules` by itself: each model keeps its own."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator

import pytest

from batcher.models.checked import CheckedModel
from batcher.models.version_code.plain_names import forget_plain_names
from tests.support.model_folders import Folders, multiplied_by, pickled_elsewhere

HELPER = "class Extractor:\n    def factor(self):\n        return {factor}\n"
PUT = """
import pickle, sys
{statement}

class Model:
    def predict(self, inputs):
        return {{"y": inputs["x"] * {found}}}
"""
BY_PATH = """
import importlib.util, pathlib
path = pathlib.Path(__file__).with_name("helper.py")
spec = importlib.util.spec_from_file_location("features", path)
features = importlib.util.module_from_spec(spec)
sys.modules["features"] = features
spec.loader.exec_module(features)
"""
MADE = """
import types
from helper import Extractor
sys.modules["features"] = types.ModuleType("features")
sys.modules["features"].Extractor = Extractor
"""
WAYS = {
    "a file beside the model": "import helper\nsys.modules['features'] = helper",
    "a file that is loaded by its path": BY_PATH,
    "a module that is made": MADE,
}


@pytest.fixture(autouse=True)
def _no_plain_names() -> Iterator[None]:
    """Forget plain names after each load of a test, as a server does."""
    yield
    forget_plain_names()


def putting(folders: Folders, name: str, factor: int, statement: str, found: str) -> CheckedModel:
    """Load a model as a server does, whose code puts a module into `sys.modules`."""
    source = PUT.format(statement=statement, found=found)
    files: dict[str, str | bytes] = {"helper.py": HELPER.format(factor=factor)}
    checked = folders.load(folders.python(source, files=files, name=name), warmup=False)
    forget_plain_names()
    return checked


@pytest.mark.parametrize("way", WAYS)
def test_a_module_that_a_model_puts_there_is_found_by_its_own_pickles_alone(
    folders: Folders, way: str
) -> None:
    found = f"pickle.loads({pickled_elsewhere()!r}).factor()"
    loaded = [putting(folders, name, n, WAYS[way], found) for n, name in ((2, "m"), (3, "n"))]
    assert [multiplied_by(each) for each in loaded * 2] == [2, 3, 2, 3]
    assert "features" not in sys.modules


def test_what_another_model_has_put_there_hides_no_file_beside_the_model(folders: Folders) -> None:
    found = f"pickle.loads({pickled_elsewhere()!r}).factor()"
    putting(folders, "m", 2, WAYS["a module that is made"], found)
    files: dict[str, str | bytes] = {"features.py": HELPER.format(factor=3)}
    source = PUT.format(statement="", found=found)
    assert multiplied_by(folders.load(folders.python(source, files=files, name="n"))) == 3


def test_an_installed_module_that_a_model_replaces_is_there_again_for_others(
    folders: Folders,
) -> None:
    statement = "import helper\nhelper.dumps = lambda value: 'four'\nsys.modules['json'] = helper"
    # A library's own import finds the replacement as well: that is what such a model wants.
    found = "len(sys.modules['json'].dumps(0))"
    checked = putting(folders, "m", 2, statement, found)
    assert multiplied_by(checked) == 4
    assert sys.modules["json"] is json


def test_a_library_that_the_model_calls_imports_what_the_model_has_put_there(
    folders: Folders, tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = os.path.join(tmp_path, "site-packages")
    os.mkdir(folder)
    with open(os.path.join(folder, "a_caller.py"), "w") as file:
        file.write("def ask():\n    import features\n    return features.Extractor().factor()\n")
    monkeypatch.syspath_prepend(folder)
    try:
        loaded = [
            putting(folders, name, n, "import a_caller" + MADE, "a_caller.ask()")
            for n, name in ((2, "m"), (3, "n"))
        ]
        assert [multiplied_by(each) for each in loaded * 2] == [2, 3, 2, 3]
    finally:
        sys.modules.pop("a_caller", None)


def test_what_a_model_has_put_there_goes_with_the_model(folders: Folders) -> None:
    gc.collect()
    before = set(map(str, sys.modules))
    checked = putting(folders, "m", 2, WAYS["a file that is loaded by its path"], "2")
    assert set(map(str, sys.modules)) != before
    del checked
    gc.collect()
    assert set(map(str, sys.modules)) == before


def test_a_file_that_a_model_loads_by_its_path_is_read_from_its_source(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for factor in (2, 3):
        files: dict[str, str | bytes] = {"helper.py": HELPER.format(factor=factor)}
        source = PUT.format(statement=BY_PATH, found="features.Extractor().factor()")
        definition = folders.python(source, files=files)
        os.utime(definition.folder / "helper.py", (10**9, 10**9))
        assert multiplied_by(folders.load(definition)) == factor
    assert not list(definition.folder.rglob("*.pyc"))
