"""`batcher check` looks for the class of a model without running any code."""

from __future__ import annotations

import pytest

from batcher.app.checking.entry import check_entry
from batcher.errors import ConfigError
from tests.support.model_folders import Folders

NET = "class Net:\n    pass\n\nraise SystemExit('this code ran')\n"


def checked(
    folders: Folders, entry: str, text: str | bytes = NET, file: str = "net.py", head: str = ""
) -> None:
    check_entry(folders.define(f"format: python\nclass: {entry}{head}", {file: text}))


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("nett:Net", "class: expected a file nett.py beside it, .*: write `class: net:Net`"),
        ("no.such_module:Net", "class: expected a file no/such_module.py beside it"),
        ("code:Net", "class: expected a file code.py beside it, .*: write `class: net:Net`"),
        ("net:Nett", "class: expected a class or a function Nett in net.py; .*did you mean Net[?]"),
        ("net:Zzz", "class: expected a class or a function Zzz in net.py; .*none; it has Net$"),
        ("net:SystemExit", "class: expected a class or a function SystemExit in net.py"),
    ],
)
def test_a_class_that_is_not_there_is_named_with_the_nearest_one(
    folders: Folders, entry: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^model.yaml:\d+: {complaint}"):
        checked(folders, entry)


def test_a_file_that_is_no_python_is_named_with_the_line(folders: Folders) -> None:
    with pytest.raises(ConfigError, match=r"class: expected Python in net.py; got none: .*line 2"):
        checked(folders, "net:Net", "class Net: pass\ndef (")


def test_a_name_of_a_method_or_of_a_function_s_own_is_no_name_of_the_module(
    folders: Folders,
) -> None:
    with pytest.raises(ConfigError, match="expected a class or a function Net in"):
        checked(folders, "net:Net", "class A:\n    def Net(self): ...\ndef f():\n    Net = 1\n")


@pytest.mark.parametrize(
    "text",
    [
        NET,
        "def Net(): ...\n",
        "async def Net(): ...\n",
        "Net = object()\n",
        "A, (Net, *B) = x\n",
        "Net: type = int\n",
        "from other import Net\n",
        "from other import A as Net\n",
        "import Net.inner\n",
        "try:\n    import a as Net\nexcept ImportError:\n    Net = None\n",
        "if x:\n    class Net: ...\n",
        "with x as Net:\n    pass\n",
        "for Net in x:\n    pass\n",
        "(Net := 1)\n",
        "from other import *\n",
        "def __getattr__(name): ...\n",
        "globals()['Net'] = 1\n",
        "import sys\nsys.modules[__name__] = x\n",
        "def f():\n    global Net\n    Net = 1\nf()\n",
        "# -*- coding: latin-1 -*-\nNet = 'ä'\n".encode("latin-1"),
    ],
)
def test_every_way_in_which_a_module_gets_a_name_is_known(
    folders: Folders, text: str | bytes
) -> None:
    checked(folders, "net:Net", text)


@pytest.mark.parametrize(
    ("entry", "file"),
    [
        ("net:Net", "net/__init__.py"),
        ("deep.net:Net", "deep/net.py"),
        ("numpy:ndarray", "a.py"),
        ("net:Net", "net.pyc"),
    ],
)
def test_a_module_may_be_a_package_lie_deeper_or_be_installed(
    folders: Folders, entry: str, file: str
) -> None:
    checked(folders, entry, file=file)


def test_a_module_may_come_from_where_imports_lead(folders: Folders) -> None:
    checked(folders, "elsewhere_only:Net", head="\nimports: [registers]")
