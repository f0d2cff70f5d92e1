"""The line of a model author's own code that an exception comes from."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from batcher.core.spec import datatype
from batcher.errors import ModelLoadError
from batcher.models.own_code import Place, RemoteError, own_place, with_place
from tests.support.model_folders import Folders

HERE = Path(__file__)


def raised(act: object) -> BaseException:
    """Return what calling `act` raises, with its stack."""
    try:
        act()  # type: ignore[operator]
    except BaseException as err:
        return err
    raise AssertionError("nothing was raised")


def in_python() -> None:
    json.loads("{")


def in_a_framework() -> None:
    np.zeros(-1)


def in_the_server() -> None:
    datatype("nothing")


def because_of_another() -> None:
    try:
        in_python()
    except ValueError as err:
        raise KeyError("weights") from err


@pytest.mark.parametrize(
    ("act", "line"),
    [(in_python, 1), (in_a_framework, 1), (in_the_server, 1), (because_of_another, 4)],
)
def test_the_last_line_of_the_author_s_own_files_is_shown(act: object, line: int) -> None:
    place = own_place(raised(act))
    assert place is not None
    first = act.__code__.co_firstlineno  # type: ignore[attr-defined]
    assert str(place) == f"{__file__}:{first + line}"


def test_an_error_that_passed_through_no_code_of_the_author_has_the_place_of_its_cause() -> None:
    cause, error = raised(in_python), ModelLoadError("warm-up failed")
    error.__cause__, cause.__cause__ = cause, error  # and a circle ends
    assert with_place("text", error) == f"text ({own_place(cause)})"


def test_an_error_that_was_never_raised_has_no_place() -> None:
    assert with_place("text", ValueError("bad")) == "text"


def test_a_class_of_an_installed_package_is_shown_by_the_line_that_the_server_called(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    code = compile("def act():\n    return json.loads('{')\n", f"{folder}/net.py", "exec")
    names: dict[str, object] = {"json": json}
    exec(code, names)

    assert str(own_place(raised(names["act"]))).startswith(__file__)
    frames = raised(names["act"]).__traceback__
    assert frames is not None
    error = raised(names["act"]).with_traceback(frames.tb_next)
    assert str(own_place(error)) == f"{folder}/net.py:2"


@pytest.mark.parametrize(
    ("source", "stage", "line"),
    [
        ("int('a')\nclass Model:\n    def predict(self, inputs): pass", "import", 4),
        ("class Model:\n    def __init__(self): int('a')\n    predict = print", "load", 5),
        ("class Model:\n    predict = print\n    def load(self, device): int('a')", "load", 6),
        ("class Model:\n    def predict(self, inputs): int('a')", "warmup", 5),
        ("class Model:\n    predict = dict\n    def preprocess(self, i): int('a')", "warmup", 6),
        (
            "class Model:\n    def predict(self, i): return {'y': i['x']}\n"
            "    def postprocess(self, i): int('a')",
            "warmup",
            6,
        ),
    ],
)
def test_a_load_that_fails_names_the_line_and_the_stage(
    folders: Folders, source: str, stage: str, line: int
) -> None:
    definition = folders.python(source)
    with pytest.raises(ModelLoadError) as caught:
        folders.load(definition)
    assert str(caught.value).endswith(f"ValueError: {INT} ({definition.folder}/code.py:{line})")
    assert caught.value.stage == stage


INT = "invalid literal for int() with base 10: 'a'"


SIGNALS = """import signal
class Model:
    def load(self, device):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    def predict(self, inputs):
        return {"y": inputs["x"]}
"""


def test_a_model_that_installs_signal_handlers_on_a_thread_is_told_what_to_set(
    folders: Folders,
) -> None:
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(folders.load, folders.python(SIGNALS)).exception()
    assert isinstance(error, ModelLoadError)
    assert "code.py:7). Signals belong to this server" in str(error)
    assert "set `worker: process`" in str(error)


class Remote(RemoteError):
    """What came from another process."""


def test_an_error_of_another_process_says_its_place_itself() -> None:
    remote, error = Remote("stack"), ValueError("no")
    remote.place = Place("/m/1/model.py", 3)
    error.__cause__ = remote
    assert own_place(error) == Place("/m/1/model.py", 3)


def test_a_class_whose_attributes_raise_has_no_place() -> None:
    class Hostile(Exception):
        @property
        def __cause__(self) -> BaseException:  # type: ignore[override]
            raise SystemExit(3)

    assert own_place(Hostile()) is None


@pytest.mark.parametrize("at_load", [True, False], ids=["load", "warm-up"])
def test_a_file_beside_the_model_that_was_looked_for_elsewhere_is_named_with_the_mend(
    folders: Folders, at_load: bool
) -> None:
    def model(name: str, line: str) -> str:
        source = (
            f"class Model:\n    def load(self, device):\n        {line if at_load else 'pass'}\n"
        )
        source += f"    def predict(self, inputs):\n        {line}\n        return inputs['x']\n"
        with pytest.raises(ModelLoadError) as failed:
            folders.load(folders.python(source, files={"deep/words.txt": ""}, name=name))
        return str(failed.value)

    mend = "write `Path(__file__).parent / 'deep/words.txt'`"
    assert mend in model("a", "open('deep/words.txt')")
    assert "Path(__file__)" not in model("b", "open('words.txt')")
    assert "Path(__file__)" not in model("c", "open('/deep/words.txt')")
