"""The imports of a program that only uses the client: of each form, only what the form needs.

The distribution of the client alone holds the files of `client/files.txt`, so they are those that
the three forms import, no fewer and no more.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import batcher.client

ROOT = Path(__file__).resolve().parents[2]
FILES = (ROOT / "client" / "files.txt").read_text().split()
REQUIRED = {"numpy", "orjson", "httptools"}
"""Libraries that the client's distribution requires."""

OF_THE_SERVER = {
    "torch",
    "klein",
    "pydantic",
    "yaml",
    "PIL",
    "msgpack",
    "multipart",
    "click",
    "rich",
}
OF_THE_SERVER |= {"prometheus_client", "safetensors", "uvloop", "twisted.internet.reactor"}
OTHERS = {"httpx", "treq", "aiohttp", "requests"}
FORMS = {"Client": {"twisted"}, "AsyncClient": {"twisted"}, "TwistedClient": set()}
"""What each form leaves alone besides."""


def imported(name: str) -> set[str]:
    """Return the modules of a program that imports a name, or a module, of the client."""
    folder, _, last = f"batcher.client.{name}".rpartition(".")
    code = f"import sys; from {folder} import {last}; print(*sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(result.stdout.split())


ZEROMQ = ("zeromq_blocking", "zeromq_async", "zeromq_twisted")
"""Modules that a form imports for an address of ZeroMQ alone."""

SEVERAL = ("several", "balanced_blocking", "balanced_calls")
SEVERAL += tuple(f"registries.{name}" for name in ("consul", "etcd", "directory"))
"""Modules that a form imports for several servers alone; those behind extras stand below."""


def file_of(module: str) -> str:
    """Return the file of a module of ours, as its path from the repository's root."""
    path = Path(*module.split("."))
    package = path / "__init__.py"
    return str(package if (ROOT / package).exists() else path.with_suffix(".py"))


@pytest.mark.parametrize("name", FORMS)
def test_a_form_imports_only_what_it_needs(name: str) -> None:
    found = imported(name)
    assert "batcher.client" in found
    assert found >= REQUIRED
    assert not found & (OF_THE_SERVER | OTHERS | FORMS[name])


def test_the_client_alone_has_the_files_that_its_forms_import() -> None:
    found = set().union(*(imported(name) for name in FORMS))
    assert not {name for name in found if "zeromq" in name or "balance" in name}
    pytest.importorskip("zmq", reason="extra zeromq")
    pytest.importorskip("dns", reason="extra dns")
    pytest.importorskip("kazoo", reason="extra zookeeper")
    extras = (*ZEROMQ, "registries.dns_srv", "registries.zookeeper")
    found |= set().union(*(imported(name) for name in (*SEVERAL, *extras)))
    ours = {name for name in found if name.partition(".")[0] == "batcher"}
    assert sorted(FILES) == sorted(file_of(name) for name in ours)


def test_the_client_alone_requires_what_its_forms_import() -> None:
    setup = (ROOT / "client" / "setup.py").read_text()
    required = re.findall(r'"([a-z]+)>=', setup.partition("install_requires")[2].split("\n")[0])
    assert set(required) == REQUIRED


def test_every_public_name_is_there_and_no_other() -> None:
    for name in batcher.client.__all__:
        assert getattr(batcher.client, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Clients'"):
        batcher.client.Clients  # noqa: B018 - looking is what is tested
