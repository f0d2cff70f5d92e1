"""Modules in `.zip` files that models put into `sys.path`: each model has its own."""

from __future__ import annotations

import os
import py_compile
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from batcher.models.checked import CheckedModel
from batcher.models.process_state import ProcessState
from batcher.models.version_code.names import package_name
from tests.support.interpreters import printed
from tests.support.model_folders import Folders, multiplied_by

BY_ZIP = """
import importlib, pkgutil, sys
sys.path.insert(0, {path!r})
import zipped_parts.numbers
import zipped_one

class Model:
    def predict(self, inputs):
        from zipped_late import FACTOR
        assert importlib.import_module("zipped_late").FACTOR == FACTOR
        assert pkgutil.get_data(zipped_parts.__name__, "data.txt") == b"data"
        assert zipped_one.FACTOR == zipped_parts.numbers.FACTOR == FACTOR
        return {{"y": inputs["x"] * FACTOR}}
"""


def with_zip(folders: Folders, name: str, factor: int, inside: str = "") -> CheckedModel:
    """Load a model as a server does, whose modules lie in a `.zip` file outside of its folder."""
    file = folders.base.parent / f"{name}.zip"
    write_zip(file, factor, inside)
    source = BY_ZIP.format(path=os.path.join(file, *filter(None, inside.split("/"))))
    state = ProcessState()
    try:
        return folders.load(folders.python(source, name=name), warmup=False)
    finally:
        state.put_back()


def write_zip(file: Path, factor: int, inside: str = "") -> None:
    """Write the modules, which hold `factor`, with the times of a `.zip` file of long ago."""
    with ZipFile(file, "w") as archive:
        for name, text in {
            "zipped_one.py": "from zipped_parts.numbers import FACTOR\n",
            "zipped_parts/__init__.py": "",
            "zipped_parts/numbers.py": f"FACTOR = {factor}\n",
            "zipped_parts/data.txt": "data",
            "zipped_late.py": "import zipped_one\nFACTOR = zipped_one.FACTOR\n",
        }.items():
            archive.writestr(inside + name, text)
    os.utime(file, (10**9, 10**9))


@pytest.mark.parametrize("inside", ["", "src/deep/"], ids=["the file", "a folder in the file"])
def test_two_models_with_zip_files_in_the_path_have_modules_of_their_own(
    folders: Folders, inside: str
) -> None:
    before = list(sys.path)
    loaded = [with_zip(folders, name, factor, inside) for factor, name in ((2, "m"), (3, "n"))]
    assert [multiplied_by(each) for each in loaded * 2] == [2, 3, 2, 3]
    assert sys.path == before
    assert not [name for name in sys.modules if name.startswith("zipped_")]


def test_two_models_with_zip_files_of_bytecode_alone_have_modules_of_their_own(
    folders: Folders, tmp_path: Path
) -> None:
    loaded = []
    for factor, name in ((2, "m"), (3, "n")):
        with ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for module, text in {
                "zipped_bare": "from zipped_bare_parts.numbers import FACTOR\n",
                "zipped_bare_parts/__init__": "",
                "zipped_bare_parts/numbers": f"FACTOR = {factor}\n",
            }.items():
                (tmp_path / "module.py").write_text(text)
                py_compile.compile(str(tmp_path / "module.py"), str(tmp_path / "module.pyc"))
                archive.write(tmp_path / "module.pyc", f"{module}.pyc")
        source = (
            f"import sys\nsys.path.insert(0, {str(tmp_path / name) + '.zip'!r})\n"
            "class Model:\n"
            "    def predict(self, inputs):\n"
            "        import zipped_bare\n"
            "        return {'y': inputs['x'] * zipped_bare.FACTOR}\n"
        )
        state = ProcessState()
        loaded.append(folders.load(folders.python(source, name=name), warmup=False))
        state.put_back()
    assert [multiplied_by(each) for each in loaded * 2] == [2, 3, 2, 3]


def test_a_zip_file_that_is_replaced_is_read_anew_by_the_next_load_alone(folders: Folders) -> None:
    first = with_zip(folders, "m", 2)
    second = with_zip(folders, "m", 3)
    assert [multiplied_by(each) for each in (first, second)] == [2, 3]


def test_a_process_that_a_model_has_started_finds_the_modules_by_their_names(
    folders: Folders,
) -> None:
    file = folders.base.parent / "m.zip"
    file.parent.mkdir(exist_ok=True)
    write_zip(file, 5)
    program = f"from {package_name(str(file), 3)}.zipped_late import FACTOR; print(FACTOR)"
    assert printed(program) == "5\n"


def test_a_wheel_in_the_path_is_a_library_of_all_models(folders: Folders) -> None:
    file = folders.base.parent / "library_by_zip-1.0-py3-none-any.whl"
    with ZipFile(file, "w") as archive:
        archive.writestr("library_by_zip.py", "FACTOR = 7\n")
        archive.writestr("library_by_zip-1.0.dist-info/METADATA", "")
    source = f"""
import sys
sys.path.insert(0, {str(file)!r})
import library_by_zip

class Model:
    def predict(self, inputs):
        return {{"y": inputs["x"] * library_by_zip.FACTOR}}
"""
    before = list(sys.path)
    try:
        state = ProcessState()
        loaded = [folders.load(folders.python(source, name=name)) for name in ("m", "n")]
        state.put_back()
        assert [multiplied_by(each) for each in loaded] == [7, 7]
        assert sys.modules["library_by_zip"].FACTOR == 7
    finally:
        sys.path[:] = before
        sys.modules.pop("library_by_zip", None)
