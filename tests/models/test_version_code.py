"""The modules of a version folder: a package for each load, whose names a loaded model owns."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.support.model_folders import Folders, answers, floats

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
