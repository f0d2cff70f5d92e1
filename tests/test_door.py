"""The door of the package: what users import, and that nothing is imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import batcher

HEAVY = (
    "klein",
    "torch",
    "twisted",
    "pydantic",
    "click",
    "numpy",
    "batcher.app",
    "batcher.serving",
)


def run(code: str) -> str:
    """Return what `code` prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_alone_imports_next_to_nothing() -> None:
    code = f"import sys, batcher; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize(
    "name", [name for name in batcher.__all__ if name not in ("BatcherService", "__version__")]
)
def test_no_name_but_the_service_imports_klein_pytorch_or_a_reactor(name: str) -> None:
    libraries = ("klein", "torch", "twisted.internet.reactor")
    code = (
        f"import sys\nfrom batcher import {name}\n"
        f"print([name for name in {libraries} if name in sys.modules])"
    )
    assert run(code) == "[]"


@pytest.mark.parametrize("name", batcher.__all__)
def test_every_name_of_the_door_loads_and_stays(name: str) -> None:
    code = f"import batcher; print(batcher.{name} is batcher.{name}, {name!r} in dir(batcher))"
    assert run(code) == "True True"


def test_a_star_brings_every_name() -> None:
    code = "from batcher import *; print(ModelServer.__name__, errors.__name__, __version__)"
    assert run(code) == f"ModelServer batcher.errors {batcher.__version__}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'batcher' has no attribute 'ModelSever'"):
        batcher.ModelSever  # noqa: B018  # the look-up is the test


def test_names_that_are_not_loaded_yet_are_listed() -> None:
    assert run("import batcher; print(set(batcher.__all__) <= set(dir(batcher)))") == "True"
