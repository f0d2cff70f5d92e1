"""The modules of a version folder: a package for each definition, which owns its names."""

from __future__ import annotations

import gc
import os
import py_compile
import shutil
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from batcher.errors import ModelLoadError
from batcher.models.version_code.names import PREFIX, folder_of, package_name, package_of
from batcher.models.version_code.plain_names import forget_plain_names
from tests.support.interpreters import printed
from tests.support.model_folders import Folders, answers, floats, multiplied_by, pickled_elsewhere

DOUBLE = """
class Model:
    def predict(self, inputs):
        return {"y": inputs["x"] * 2}
"""
IMPORTS = """
from .{module} import FACTOR

class Model:
    def predict(self, inputs):
        return {{"y": inputs["x"] * FACTOR}}
"""
LATE_IMPORT = """
class Model:
    def predict(self, inputs):
        from .constants import FACTOR
        return {"y": inputs["x"] * FACTOR}
"""


PLAIN_IMPORTS = {
    "import constants": "constants.FACTOR",
    "import constants as c": "c.FACTOR",
    "import numpy, constants as c, os": "c.FACTOR + 0 * len(os.sep) * numpy.pi",
    "from constants import FACTOR": "FACTOR",
    "from constants import FACTOR as F, other": "F + other",
    "import deeper.values": "deeper.values.FACTOR + deeper.NOTHING",
    "import deeper.values as v": "v.FACTOR",
    "from deeper import values": "values.FACTOR",
    "from deeper.values import FACTOR": "FACTOR",
}
"""Plain imports of a file beside the model, and the factor that each finds there."""


@pytest.fixture(autouse=True)
def _no_plain_names() -> Iterator[None]:
    """Forget plain names after each load of a test, as a server does."""
    yield
    forget_plain_names()


def beside(factor: int) -> dict[str, str | bytes]:
    """Return files beside a model that hold `factor`."""
    return {
        "constants.py": f"FACTOR = {factor}\nother = 0\n",
        # Within a package the plain name of the package means the package.
        "deeper/__init__.py": "NOTHING = 0\n",
        "deeper/values.py": "from deeper import again\nFACTOR = again.FACTOR\n",
        "deeper/again.py": f"FACTOR = {factor}\n",
    }


def using(statement: str, factor: str, late: bool = False) -> str:
    """Return a model that multiplies by what `statement` has imported."""
    early = "" if late else statement
    return f"""
{early}

class Model:
    def predict(self, inputs):
        {statement if late else "pass"}
        return {{"y": inputs["x"] * ({factor})}}
"""


@pytest.mark.parametrize("late", [False, True], ids=["at load", "in predict"])
@pytest.mark.parametrize("statement", PLAIN_IMPORTS)
def test_plain_imports_mean_the_files_beside_the_model_and_two_models_do_not_mix(
    folders: Folders, statement: str, late: bool
) -> None:
    source = using(statement, PLAIN_IMPORTS[statement], late)
    loaded = []
    for factor, name in ((2, "m"), (3, "n")):
        definition = folders.python(source, files=beside(factor), name=name)
        loaded.append(folders.load(definition, warmup=False))
        forget_plain_names()
    assert [multiplied_by(checked) for checked in loaded] == [2, 3]
    assert not {"constants", "deeper", "deeper.values"} & sys.modules.keys()


def test_plain_names_of_the_standard_library_and_of_the_file_itself_mean_no_file_beside_it(
    folders: Folders,
) -> None:
    files: dict[str, str | bytes] = {
        "json.py": "raise RuntimeError('not this one')\n",
        "safetensors.py": "import safetensors\nFACTOR = 2 if safetensors.__version__ else 0\n",
    }
    source = using("import json, safetensors", "safetensors.FACTOR * len(json.dumps(7))")
    assert multiplied_by(folders.load(folders.python(source, files=files))) == 2


def test_a_folder_without_init_hides_no_installed_module(folders: Folders) -> None:
    files: dict[str, str | bytes] = {"safetensors/weights.bin": b""}
    source = using("from safetensors import __version__", "2 if __version__ else 0")
    assert multiplied_by(folders.load(folders.python(source, files=files))) == 2


@pytest.mark.parametrize(
    "found",
    ["pickle.load(file)", "importlib.import_module('features').Extractor()"],
    ids=["a pickle", "import_module"],
)
def test_pickles_and_imports_by_name_in_load_find_the_model_s_own_modules(
    folders: Folders, found: str
) -> None:
    source = f"""
import importlib, pathlib, pickle

class Model:
    def load(self, device):
        with open(pathlib.Path(__file__).with_name("extractor.pkl"), "rb") as file:
            self.extractor = {found}
    def predict(self, inputs):
        return {{"y": inputs["x"] * self.extractor.factor()}}
"""
    loaded = []
    for factor, name in ((2, "m"), (3, "n")):
        code = f"class Extractor:\n    def factor(self):\n        return {factor}\n"
        files: dict[str, str | bytes] = {
            "features.py": code,
            "extractor.pkl": pickled_elsewhere(),
        }
        loaded.append(folders.load(folders.python(source, files=files, name=name)))
        forget_plain_names()
    assert [multiplied_by(checked) for checked in loaded] == [2, 3]
    assert "features" not in sys.modules


def test_the_next_model_s_plain_names_take_the_place_of_the_last_one_s(folders: Folders) -> None:
    source = """
import importlib

class Model:
    def load(self, device):
        self.factor = importlib.import_module("constants").FACTOR
    def predict(self, inputs):
        return {"y": inputs["x"] * self.factor}
"""
    loaded = [
        folders.load(folders.python(source, files=beside(factor), version=str(factor)))
        for factor in (2, 3)
    ]
    assert [multiplied_by(checked) for checked in loaded] == [2, 3]


def test_a_file_that_changes_within_a_second_and_keeps_its_size_is_read_anew(
    folders: Folders,
) -> None:
    source, times = using("from .constants import FACTOR", "FACTOR"), (10**18, 10**18)
    for factor in (2, 3, 4):
        definition = folders.python(source, files={"constants.py": f"FACTOR = {factor}\n"})
        for file in definition.folder.glob("*.py"):
            os.utime(file, ns=times)
        assert multiplied_by(folders.load(definition)) == factor
    assert not list(definition.folder.rglob("*.pyc"))


def test_bytecode_that_lies_there_and_seems_to_fit_is_not_used(folders: Folders) -> None:
    definition = folders.python(using("from .constants import FACTOR", "FACTOR"))
    constants = definition.folder / "constants.py"
    for factor in (2, 3):
        constants.write_text(f"FACTOR = {factor}\n")
        os.utime(constants, ns=(10**18, 10**18))
        if factor == 2:
            py_compile.compile(str(constants))
    assert multiplied_by(folders.load(definition)) == 3


def test_a_class_may_stand_in_a_module_without_source(folders: Folders) -> None:
    definition = folders.define(
        "format: python\nclass: bare.numbers:Model", files={"bare/numbers.py": DOUBLE}
    )
    source = definition.folder / "bare" / "numbers.py"
    py_compile.compile(str(source), str(source.with_suffix(".pyc")))
    source.unlink()
    assert multiplied_by(folders.load(definition)) == 2


def test_a_file_is_imported_once_by_all_instances(folders: Folders) -> None:
    files: dict[str, str | bytes] = {"log.py": "import os\nos.environ['TIMES'] += '+'\n"}
    definition = folders.python(using("from . import log", "2"), files=files)
    os.environ["TIMES"] = ""
    try:
        assert [multiplied_by(folders.load(definition)) for _ in range(3)] == [2, 2, 2]
        assert os.environ["TIMES"] == "+"
    finally:
        del os.environ["TIMES"]


@pytest.mark.parametrize("change", ["edited", "removed", "link turned", "others failed"])
def test_a_late_import_of_a_serving_model_takes_what_was_there_when_it_was_loaded(
    folders: Folders, change: str
) -> None:
    definition = folders.python(LATE_IMPORT, files={"constants.py": "FACTOR = 2\n"})
    loaded = folders.load(definition, warmup=False)
    folder = definition.folder
    if change == "edited":
        (folder / "constants.py").write_text("FACTOR = 3\n")
    elif change == "others failed":
        for _ in range(3):
            with pytest.raises(ModelLoadError):
                folders.load(folders.python("raise RuntimeError('broken')"))
    else:
        folder.rename(folder.with_name("moved"))
        if change == "link turned":
            folder.symlink_to(folder.with_name("moved"))
            folder.with_name("moved").joinpath("constants.py").write_text("FACTOR = 3\n")
    assert multiplied_by(loaded) == 2


def test_the_modules_live_as_long_as_somebody_holds_the_definition(folders: Folders) -> None:
    def names() -> set[str]:
        return {name for name in sys.modules if package_of(name)} | {
            name for name in vars(sys.modules[PREFIX[:-1]]) if package_of(PREFIX + name)
        }

    gc.collect()
    before = names()
    loaded = folders.load(folders.python(DOUBLE))
    assert len(names() - before) == 3  # the package, its module, and the attribute
    del loaded
    gc.collect()
    assert names() == before


def test_a_fresh_interpreter_finds_a_module_by_its_name(folders: Folders) -> None:
    definition = folders.python(using("import constants", "constants.FACTOR"), files=beside(7))
    name = f"{package_name(str(definition.folder), 3)}.constants"
    program = f"from {name} import FACTOR; print(FACTOR)"
    assert printed(program) == "7\n"


@pytest.mark.parametrize("folder", ["/models/a/1", "/Ä b_c/é.d/1", "relative"])
def test_the_name_of_a_package_holds_its_folder(folder: str) -> None:
    name = package_name(folder, 12)
    assert name.isascii()
    assert all(part.isidentifier() for part in name.split("."))
    assert folder_of(name) == folder
    assert package_of(f"{name}.deeper.values") == name


def test_a_module_of_no_version_has_no_package() -> None:
    for name in ("json", "batcher.models.version_code.finder", "batcher.models.version_code"):
        assert package_of(name) == ""


def test_modules_import_each_other_relatively(folders: Folders) -> None:
    files = {
        "constants.py": "from .deeper.values import FACTOR\n",
        "deeper/__init__.py": "",
        "deeper/values.py": "FACTOR = 5\n",
    }
    definition = folders.python(IMPORTS.format(module="constants"), files=files)
    np.testing.assert_array_equal(answers(folders.load(definition), x=floats())["y"], floats() * 5)


@pytest.mark.parametrize(
    "source",
    [IMPORTS.format(module="constants"), LATE_IMPORT],
    ids=["imported at load", "imported in predict"],
)
@pytest.mark.parametrize(
    "others",
    [
        [("m", "1"), ("n", "1")],
        [("m", "1"), ("m", "2")],
        [("a.b", "1"), ("a_b", "1")],
        [("a_1", "2"), ("a", "12")],
    ],
    ids=[
        "two models",
        "two versions",
        "names that differ in a dot",
        "a name that ends like a version",
    ],
)
def test_models_with_modules_of_the_same_name_do_not_mix(
    folders: Folders, source: str, others: list[tuple[str, str]]
) -> None:
    loaded = [
        folders.load(
            folders.python(
                source, files={"constants.py": f"FACTOR = {factor}\n"}, name=name, version=version
            ),
            warmup=False,
        )
        for factor, (name, version) in enumerate(others, 2)
    ]
    for factor, checked in enumerate(loaded, 2):
        np.testing.assert_array_equal(answers(checked, x=floats())["y"], floats() * factor)


def test_every_instance_may_import_late_however_many_there_are_and_while_they_are_replaced(
    folders: Folders,
) -> None:
    definitions = []
    for factor in (2, 3):
        folders.base = folders.base.with_name(f"repository{factor}")
        definitions.append(
            folders.python(LATE_IMPORT, files={"constants.py": f"FACTOR = {factor}\n"})
        )
    loaded = [
        folders.load(definition, warmup=False) for definition in definitions for _ in range(4)
    ]
    for number, checked in enumerate(loaded):
        np.testing.assert_array_equal(
            answers(checked, x=floats())["y"], floats() * (2 if number < 4 else 3)
        )


def test_a_module_that_is_named_like_one_of_the_standard_library_hides_nothing(
    folders: Folders,
) -> None:
    definition = folders.python("", "json:Model", files={"json.py": DOUBLE})
    before = sys.modules["json"] if "json" in sys.modules else __import__("json")
    np.testing.assert_array_equal(answers(folders.load(definition), x=floats())["y"], floats() * 2)
    assert sys.modules["json"] is before


def test_a_model_that_is_loaded_again_is_read_again(folders: Folders) -> None:
    folders.load(
        folders.python(IMPORTS.format(module="constants"), files={"constants.py": "FACTOR = 2\n"})
    )
    again = folders.load(
        folders.python(
            IMPORTS.format(module="constants"), files={"constants.py": "FACTOR = 1000\n"}
        )
    )
    np.testing.assert_array_equal(answers(again, x=floats())["y"], floats() * 1000)


def test_loading_leaves_the_path_for_imports_alone(folders: Folders) -> None:
    before = list(sys.path)
    folders.load(folders.python(DOUBLE))
    assert sys.path == before


@pytest.mark.parametrize("late", [False, True], ids=["at load", "in predict"])
@pytest.mark.parametrize(
    ("statement", "factor"),
    [
        ("from layers.numbers import FACTOR", "FACTOR"),
        ("import layers.numbers", "layers.numbers.FACTOR"),
        ("from layers import numbers", "numbers.FACTOR"),
        ("from layers.deeper.numbers import FACTOR", "FACTOR"),
        ("from .layers.numbers import FACTOR", "FACTOR"),
    ],
)
def test_a_folder_beside_the_model_needs_no_init(
    folders: Folders, statement: str, factor: str, late: bool
) -> None:
    loaded = []
    for number, name in ((2, "m"), (3, "n")):
        files: dict[str, str | bytes] = {
            "layers/numbers.py": f"FACTOR = {number}\n",
            "layers/deeper/numbers.py": "from layers.numbers import FACTOR\n",
        }
        definition = folders.python(using(statement, factor, late), files=files, name=name)
        loaded.append(folders.load(definition, warmup=False))
        forget_plain_names()
        # What was read is imported, whatever lies on the disk by now.
        shutil.rmtree(definition.folder)
    assert [multiplied_by(checked) for checked in loaded] == [2, 3]
    assert "layers" not in sys.modules


@pytest.mark.parametrize("package", ["__package__", '"deep"', '"deep.whole"'])
def test_files_of_packages_are_found_as_resources(folders: Folders, package: str) -> None:
    source = f"""
from importlib import resources

FACTOR = float(resources.files({package}).joinpath("factor.txt").read_text())

class Model:
    def predict(self, inputs):
        return {{"y": inputs["x"] * FACTOR}}
"""
    folder = package.strip('"').replace(".", "/").replace("__package__", "")
    files = {f"{folder}/factor.txt".lstrip("/"): "3", "deep/whole/__init__.py": ""}
    assert multiplied_by(folders.load(folders.python(source, files=files))) == 3
