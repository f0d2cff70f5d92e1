"""Folders that models put into `sys.path`, and folders beside them: each model has its own code."""

from __future__ import annotations

import gc
import os
import py_compile
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from batcher.errors import ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.process_state import ProcessState
from batcher.models.version_code import homes, importing, own_path, plain_names, sources
from batcher.models.version_code.plain_names import forget_plain_names
from tests.support.model_folders import Folders, answers, floats, multiplied_by, pickled_elsewhere


@pytest.fixture(autouse=True)
def _no_plain_names() -> Iterator[None]:
    """Forget plain names after each load of a test, as a server does."""
    yield
    forget_plain_names()


PATH_IMPORTS = """
import sys
from pathlib import Path, PurePath

sys.path.{change}
import beside_by_path

class Model:
    def predict(self, inputs):
        import beside_by_path as late
        assert late.FACTOR > 0
        return {{"y": inputs["x"] * beside_by_path.FACTOR}}
"""
FOLDER_OF_CODE = "str(Path(__file__).parent / 'src')"


@pytest.fixture
def _own_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave nothing in `sys.path` and in `sys.modules` of what models put there."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("beside_by_path", None)


@pytest.mark.usefixtures("_own_path")
@pytest.mark.parametrize("change", [f"insert(0, {FOLDER_OF_CODE})", f"append({FOLDER_OF_CODE})"])
def test_a_version_s_own_folder_in_the_path_gives_no_module_of_another_version(
    folders: Folders, change: str
) -> None:
    source = PATH_IMPORTS.format(change=change)
    loaded = []
    for version in ("1", "2", "3"):
        files = {"src/beside_by_path.py": f"FACTOR = {version}\n"}
        loaded.append(folders.load(folders.python(source, version=version, files=files)))
        forget_plain_names()

    assert [answers(each, x=floats())["y"][0, 1] for each in loaded] == [1, 2, 3]
    assert [answers(each, x=floats())["y"][0, 1] for each in loaded] == [1, 2, 3]


@pytest.mark.usefixtures("_own_path")
def test_a_file_in_the_path_that_changes_and_keeps_its_times_is_read_anew(
    folders: Folders,
) -> None:
    source = PATH_IMPORTS.format(change=f"insert(0, {FOLDER_OF_CODE})")
    factors = []
    for factor in (4, 5):
        files = {"src/beside_by_path.py": f"FACTOR = {factor}\n"}
        definition = folders.python(source, files=files)
        helper = definition.folder / "src" / "beside_by_path.py"
        os.utime(helper, (1, 1))
        checked = folders.load(definition)
        forget_plain_names()
        factors.append(answers(checked, x=floats())["y"][0, 1])
        py_compile.compile(str(helper))

    assert factors == [4, 5]


BY_PATH = """
import sys
from pathlib import Path

{change}
import {name} as helper

class Model:
    def predict(self, inputs):
        import {name} as late
        from {name} import FACTOR
        assert late is helper and FACTOR == helper.FACTOR
        return {{"y": inputs["x"] * helper.FACTOR}}
"""
"""A model that puts a folder into `sys.path` and imports a module from there, early and late."""

CHANGES_OF_PATH = {
    "in front": "sys.path.insert(0, {folder!r})",
    "at the end": "sys.path.append({folder!r})",
    "a new list": "sys.path = [*sys.path, {folder!r}]",
    "by site": "import site; site.addsitedir({folder!r})",
    "once": "if {folder!r} not in sys.path: sys.path.insert(0, {folder!r})",
}


def with_helper(folders: Folders, name: str, factor: int, change: str, helper: str) -> CheckedModel:
    """Load a model as a server does, whose `helper` lies in a folder outside of its own."""
    elsewhere = folders.base.parent / f"of_{name}"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / f"{helper}.py").write_text(f"FACTOR = {factor}\n")
    source = BY_PATH.format(change=change.format(folder=str(elsewhere)), name=helper)
    state = ProcessState()
    try:
        return folders.load(folders.python(source, name=name))
    finally:
        state.put_back()


@pytest.mark.parametrize("change", CHANGES_OF_PATH)
def test_two_models_that_put_folders_into_the_path_have_helpers_of_their_own(
    folders: Folders, change: str
) -> None:
    before = list(sys.path)
    loaded = [
        with_helper(folders, name, factor, CHANGES_OF_PATH[change], "beside_by_path")
        for factor, name in ((2, "m"), (3, "n"))
    ]
    assert [multiplied_by(checked) for checked in loaded * 2] == [2, 3, 2, 3]
    assert sys.path == before
    assert "beside_by_path" not in sys.modules


def test_a_helper_of_the_name_of_an_installed_module_is_each_model_s_own(folders: Folders) -> None:
    import safetensors

    change = CHANGES_OF_PATH["in front"]
    loaded = [
        with_helper(folders, name, factor, change, "safetensors")
        for factor, name in ((2, "m"), (3, "n"))
    ]
    assert [multiplied_by(checked) for checked in loaded] == [2, 3]
    assert sys.modules["safetensors"] is safetensors


def test_an_installed_module_comes_before_a_folder_at_the_end_of_the_path(folders: Folders) -> None:
    source = "import sys\nsys.path.append({folder!r})"
    with pytest.raises(ModelLoadError, match=r"cannot import name 'FACTOR'"):
        multiplied_by(with_helper(folders, "m", 2, source, "safetensors"))


def test_helpers_behind_links_are_each_model_s_own(folders: Folders) -> None:
    loaded = []
    for factor, name in ((2, "m"), (3, "n")):
        real = folders.base.parent / f"releases_{name}"
        (real / "src" / "parts").mkdir(parents=True)
        (real / "src" / "beside_by_path.py").write_text("from parts.numbers import FACTOR\n")
        (real / "src" / "parts" / "numbers.py").write_text(f"FACTOR = {factor}\n")
        folder = folders.base / name / "1"
        folder.mkdir(parents=True)
        (folder / "src").symlink_to(real / "src")
        source = BY_PATH.format(
            change="sys.path.insert(0, str((Path(__file__).parent / 'src').resolve()))",
            name="beside_by_path",
        )
        state = ProcessState()
        loaded.append(folders.load(folders.python(source, name=name)))
        state.put_back()
    assert [multiplied_by(checked) for checked in loaded] == [2, 3]


def test_pickles_find_the_helpers_of_the_path_while_a_model_loads(folders: Folders) -> None:
    elsewhere = folders.base.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "features.py").write_text("class Extractor:\n    def factor(self): return 2\n")
    source = f"""
import pickle, sys
sys.path.append({str(elsewhere)!r})

class Model:
    def load(self, device):
        self.extractor = pickle.loads({pickled_elsewhere()!r})
    def predict(self, inputs):
        return {{"y": inputs["x"] * self.extractor.factor()}}
"""
    assert multiplied_by(folders.load(folders.python(source))) == 2


def test_installed_libraries_of_a_folder_in_the_path_are_imported_once(folders: Folders) -> None:
    elsewhere = folders.base.parent / "target"
    (elsewhere / "beside_by_path-1.0.dist-info").mkdir(parents=True)
    change = CHANGES_OF_PATH["in front"].replace("{folder!r}", repr(str(elsewhere)))
    (elsewhere / "beside_by_path.py").write_text("FACTOR = 7\n")
    before = list(sys.path)
    try:
        loaded = []
        for name in ("m", "n"):
            state = ProcessState()
            source = BY_PATH.format(change=change, name="beside_by_path")
            loaded.append(folders.load(folders.python(source, name=name)))
            state.put_back()
        assert [multiplied_by(checked) for checked in loaded] == [7, 7]
        assert sys.path == [*before, str(elsewhere)]
        assert sys.modules["beside_by_path"].FACTOR == 7
    finally:
        sys.path[:] = before
        sys.modules.pop("beside_by_path", None)


def test_a_library_that_puts_its_own_folder_into_the_path_keeps_the_names_of_its_modules(
    folders: Folders,
) -> None:
    """As OpenCV does, whose native module refuses another name than its own."""
    elsewhere = folders.base.parent / "target"
    (elsewhere / "library_by_path-1.0.dist-info").mkdir(parents=True)
    library = elsewhere / "library_by_path"
    library.mkdir()
    (library / "__init__.py").write_text(
        f"import sys\nsys.path.insert(0, {str(library)!r})\nimport part_by_path\nFACTOR = 7\n"
    )
    (library / "part_by_path.py").write_text("assert __name__ == 'part_by_path', __name__\n")
    change = CHANGES_OF_PATH["in front"].replace("{folder!r}", repr(str(elsewhere)))
    before = list(sys.path)
    try:
        source = BY_PATH.format(change=change, name="library_by_path")
        assert multiplied_by(folders.load(folders.python(source))) == 7
    finally:
        sys.path[:] = before
        for name in ("library_by_path", "part_by_path"):
            sys.modules.pop(name, None)


def test_the_names_of_helpers_go_with_the_model(folders: Folders) -> None:
    checked = with_helper(folders, "m", 2, CHANGES_OF_PATH["in front"], "beside_by_path")
    helpers = [name for name in sys.modules if name.endswith(".beside_by_path")]
    assert len(helpers) == 1
    del checked
    gc.collect()
    assert not [name for name in sys.modules if name.endswith(".beside_by_path")]


CHANGES_LATE = """
import importlib, sys
sys.path.insert(0, {folder!r})
import beside_by_path

class Model:
    def predict(self, inputs):
        sys.path.append({late!r})
        late = importlib.import_module("late_by_path")
        return {{"y": inputs["x"] * beside_by_path.FACTOR * late.FACTOR}}
"""
STATE: dict[str, dict[Any, Any]] = {
    f"{module.__name__}.{name}": value
    for module in (own_path, homes, sources, importing, plain_names)
    for name, value in vars(module).items()
    if name.startswith("_") and isinstance(value, dict) and not name.startswith("__")
}
"""What is known of packages: by the names of the dictionaries."""


def test_200_loads_leave_nothing_behind(folders: Folders) -> None:
    def known() -> tuple[dict[str, int], list[str], int]:
        gc.collect()
        sizes = {name: len(each) for name, each in STATE.items()}
        return sizes, list(sys.path), len(sys.modules)

    assert len(STATE) == 8
    before = known()
    for number in range(200):
        folder, late = (folders.base.parent / f"{name}{number}" for name in ("early", "late"))
        for each, module in ((folder, "beside_by_path"), (late, "late_by_path")):
            each.mkdir()
            (each / f"{module}.py").write_text("FACTOR = 3\n")
        source = CHANGES_LATE.format(folder=str(folder), late=str(late))
        state = ProcessState()
        checked = folders.load(folders.python(source), warmup=False)
        state.put_back()
        assert multiplied_by(checked) == 9
        del checked
    assert known() == before
