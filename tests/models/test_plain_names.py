"""Modules that models look up by plain names at run time: each model finds its own."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batcher.models.checked import CheckedModel
from batcher.models.version_code import plain_names
from batcher.models.version_code.plain_names import forget_plain_names
from tests.support.model_folders import Folders, multiplied_by, pickled_elsewhere

LATE = """
import importlib, io, pickle, sys
import torch

class Model:
    def predict(self, inputs):
        {statement}
        return {{"y": inputs["x"] * ({found})}}
"""
FEATURES = """
import pickle
FACTOR = {factor}

class Extractor:
    def factor(self):
        return FACTOR

def unpickled(data):
    return pickle.loads(data)
"""
LIBRARY = """
def ask():
    import features
    return features
"""
WAYS = {
    "import_module": "importlib.import_module('features').FACTOR",
    "a module below": "importlib.import_module('parts.values').FACTOR",
    "__import__": "__import__('features').FACTOR",
    "exec": "exec('import features; global FOUND; FOUND = features.FACTOR') or FOUND",
    "a pickle": "pickle.loads({data!r}).factor()",
    "a pickle in Python": "pickle._loads({data!r}).factor()",
    "a pickle by PyTorch": "torch.load(io.BytesIO(self.saved), weights_only=False).factor()",
    "a pickle that a helper reads": "__import__('features').unpickled({data!r}).factor()",
    "sys.modules": "importlib.import_module('features') and sys.modules['features'].FACTOR",
}
"""Ways to look a module up at run time, and the factor that each finds there."""


@pytest.fixture(autouse=True)
def _no_plain_names() -> Iterator[None]:
    """Forget plain names after each load of a test, as a server does."""
    yield
    forget_plain_names()


def late(
    folders: Folders, name: str, factor: int, found: str, statement: str = "pass"
) -> CheckedModel:
    """Load a model as a server does, which finds its `factor` in `predict`."""
    source = LATE.format(statement=statement, found=found)
    files: dict[str, str | bytes] = {
        "features.py": FEATURES.format(factor=factor),
        "parts/__init__.py": "",
        "parts/values.py": f"FACTOR = {factor}\n",
    }
    checked = folders.load(folders.python(source, files=files, name=name), warmup=False)
    forget_plain_names()
    return checked


def saved() -> str:
    """Return a statement that saves an object of a module `features` as PyTorch does."""
    return (
        "pass\n        module = importlib.import_module('features')\n"
        "        file = io.BytesIO()\n"
        "        module.Extractor.__module__ = 'features'\n"
        "        torch.save(module.Extractor(), file)\n"
        "        self.saved = file.getvalue()"
    )


@pytest.mark.parametrize("way", WAYS)
def test_code_that_runs_in_predict_finds_the_model_s_own_modules(
    folders: Folders, way: str
) -> None:
    found = WAYS[way].format(data=pickled_elsewhere()) if "data" in WAYS[way] else WAYS[way]
    statement = saved() if "PyTorch" in way else "pass"
    loaded = [
        late(folders, name, factor, found, statement) for factor, name in ((2, "m"), (3, "n"))
    ]
    assert [multiplied_by(each) for each in loaded * 2] == [2, 3, 2, 3]
    assert not {"features", "parts", "parts.values"} & sys.modules.keys()
    assert "features" not in sys.modules


def test_models_that_look_up_at_the_same_time_do_not_mix(folders: Folders) -> None:
    found = WAYS["a pickle"].format(data=pickled_elsewhere())
    loaded = [late(folders, f"m{factor}", factor, found) for factor in range(2, 6)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(multiplied_by, loaded * 50))
    assert results == [2, 3, 4, 5] * 50


def test_threads_that_a_model_starts_find_its_modules(folders: Folders) -> None:
    statement = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "        def find(): return importlib.import_module('features').FACTOR\n"
        "        with ThreadPoolExecutor(1) as pool: found = pool.submit(find).result()"
    )
    loaded = [late(folders, name, n, "found", statement) for n, name in ((2, "m"), (3, "n"))]
    assert [multiplied_by(each) for each in loaded] == [2, 3]


def test_a_process_of_one_model_knows_its_names_on_every_thread(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_names, "_only", [])
    files: dict[str, str | bytes] = {"features.py": FEATURES.format(factor=2)}
    checked = folders.load(folders.python(LATE.format(statement="pass", found="2"), files=files))
    plain_names.keep_plain_names()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(pickle.loads, pickled_elsewhere()).result().factor() == 2
    del checked


def test_a_model_that_loads_gives_its_modules_to_no_other_model(folders: Folders) -> None:
    found = WAYS["a pickle"].format(data=pickled_elsewhere())
    serving = late(folders, "m", 2, found)
    source = "import importlib\nFACTOR = importlib.import_module('features').FACTOR\n"
    folders.load(
        folders.python(
            source + LATE.format(statement="pass", found="FACTOR"),
            name="n",
            files={"features.py": FEATURES.format(factor=3)},
        )
    )
    # As in the middle of a load: the names of the model that loads are not forgotten yet.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(multiplied_by, serving).result() == 2
        assert pool.submit(lambda: "features" in sys.modules).result() is False
    assert multiplied_by(serving) == 2


def test_a_library_s_own_import_means_an_installed_module(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "features.py").write_text("FACTOR = 10\n")
    (installed / "a_library.py").write_text(
        "def ask():\n    import features\n    return features\n"
    )
    monkeypatch.syspath_prepend(str(installed))
    statement = "import a_library\n        own = importlib.import_module('features').FACTOR"
    try:
        checked = late(folders, "m", 2, "own + a_library.ask().FACTOR", statement)
        assert multiplied_by(checked) == 12
    finally:
        for name in ("features", "a_library"):
            sys.modules.pop(name, None)


def test_a_library_imports_a_module_of_the_model_that_calls_where_none_is_installed(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "a_library.py").write_text(
        "def ask():\n    import features\n    return features\n"
    )
    monkeypatch.syspath_prepend(str(installed))
    try:
        loaded = [
            late(folders, name, factor, "a_library.ask().FACTOR", "import a_library")
            for factor, name in ((2, "m"), (3, "n"))
        ]
        assert [multiplied_by(each) for each in loaded * 2] == [2, 3, 2, 3]
    finally:
        sys.modules.pop("a_library", None)


def test_a_module_that_is_missing_is_missing_in_each_way(folders: Folders) -> None:
    statement = (
        "try: importlib.import_module('no_such_module')\n"
        "        except ModuleNotFoundError as err: found = len(err.name)"
    )
    checked = late(folders, "m", 2, "found", statement)
    assert multiplied_by(checked) == len("no_such_module")


def test_the_plain_names_go_with_the_model(folders: Folders) -> None:
    gc.collect()
    before = len(sys.modules)
    checked = late(folders, "m", 2, WAYS["import_module"])
    multiplied_by(checked)
    assert not [name for name in sys.modules if name.startswith("features")]
    del checked
    gc.collect()
    assert len(sys.modules) == before


def test_copies_and_pickles_of_names_are_plain_text_that_names_the_same_module(
    folders: Folders,
) -> None:
    checked = late(folders, "m", 2, WAYS["import_module"])
    multiplied_by(checked)
    names = list(sys.modules)
    assert any(type(name) is not str for name in names)
    for copied in (copy.deepcopy(names), pickle.loads(pickle.dumps(names))):
        assert all(type(name) is str for name in copied)
        assert [sys.modules[name] for name in copied] == [sys.modules[name] for name in names]
