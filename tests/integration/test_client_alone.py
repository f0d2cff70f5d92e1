"""The client's own distribution: light, and a good neighbour of the server's.

Wheels are built and installed by pip into virtual environments that are empty before.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import ROOT, Process, started

CALLS = """
import asyncio, sys
import numpy as np
from batcher.client import AsyncClient, Client

images = np.zeros((3, 1, 8, 8), "float32")

async def asynchronous():
    async with AsyncClient(sys.argv[1]) as client:
        return await client.infer("digits", {"image": images})

with Client(sys.argv[1]) as client:
    first = client.infer("digits", {"image": images})
second = asyncio.run(asynchronous())
assert np.array_equal(first.outputs["scores"], second.outputs["scores"])
print(first.outputs["scores"].shape, "torch" in sys.modules)
"""
HOME_OF_CLIENT = "import batcher.client; print(batcher.client.__file__)"
SOURCES = ("batcher", "twisted", "setup.py", "pyproject.toml", "README.md", "compiled_modules.txt")


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command away from the checkout, and return what it prints."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd or "/",
        env=environment | {"WITHOUT_MYPYC": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


class Environment:
    """A virtual environment."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.python = folder / "bin" / "python"

    def pip(self, *arguments: object) -> str:
        return run(self.python, "-m", "pip", *arguments)

    def home_of_client(self) -> str:
        return run(self.python, "-c", HOME_OF_CLIENT).strip()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder)
    (folder / "server").mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            compiled = shutil.ignore_patterns("*.so")
            shutil.copytree(ROOT / name, folder / "server" / name, ignore=compiled)
        else:
            shutil.copyfile(ROOT / name, folder / "server" / name)
    try:
        run(*build, ROOT / "client")
        run(*build, folder / "server")
    except AssertionError as err:
        if "No matching distribution" not in str(err):
            raise
        pytest.skip("needs an index with setuptools, mypy, numpy, orjson and httptools")
    return folder


@pytest.fixture(scope="module")
def environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("empty") / "venv")
    made.pip("install", "--quiet", "-c", ROOT / "constraints.txt", *wheels.glob("*client*.whl"))
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with started(tmp_path_factory.mktemp("server")) as process:
        yield process


def test_it_calls_a_server_with_three_libraries(environment: Environment, server: Process) -> None:
    installed = environment.pip("list", "--format", "freeze").split()
    names = {line.partition("==")[0].lower() for line in installed} - {"pip", "setuptools"}
    assert names == {"batcher-inference-client", "numpy", "orjson", "httptools"}
    assert run(environment.python, "-c", CALLS, server.address) == "(3, 10) False\n"


def test_what_is_not_there_is_named_with_the_line_that_installs_it(
    environment: Environment,
) -> None:
    for name, expected in [
        ("batcher.client import TwistedClient", "pip install 'batcher-inference-client[twisted]'"),
        ("batcher import ModelServer", "pip install batcher-inference"),
    ]:
        program = f"try:\n from {name}\nexcept ModuleNotFoundError as err:\n print(err)"
        assert expected in run(environment.python, "-c", program)


@pytest.mark.parametrize("form", ["wheel", "checkout"])
def test_client_and_server_may_both_be_installed_and_either_may_go(
    environment: Environment, wheels: Path, form: str
) -> None:
    (client,) = wheels.glob("*client*.whl")
    (wheel,) = wheels.glob("batcher_inference-*.whl")
    server = [wheel] if form == "wheel" else ["--no-build-isolation", "-e", wheels / "server"]
    if form == "checkout":
        environment.pip("install", "--quiet", "setuptools>=77", "mypy==2.4.1")
    alone = environment.home_of_client()
    assert "batcher_inference_client" in alone
    environment.pip("install", "--quiet", "--no-deps", *server)
    of_the_server = environment.home_of_client()
    assert "batcher_inference_client" not in of_the_server
    environment.pip("uninstall", "--quiet", "-y", "batcher-inference-client")
    assert environment.home_of_client() == of_the_server
    environment.pip("install", "--quiet", "--no-deps", client)
    assert environment.home_of_client() == of_the_server
    environment.pip("uninstall", "--quiet", "-y", "batcher-inference")
    assert environment.home_of_client() == alone
