"""The imports of a program that only uses the client.

Each form imports one HTTP library, no reactor, and none of the server's heavy libraries.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import batcher.client

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "klein", "pydantic", "prometheus_client", "twisted.internet.reactor", "uvloop"}
FORMS = {
    "Client": {"treq", "twisted"},
    "AsyncClient": {"treq", "twisted"},
    "TwistedClient": {"httpx"},
    "ClientFailure": {"treq", "twisted", "httpx"},
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_imports_only_what_it_needs(name: str) -> None:
    code = f"import sys; from batcher.client import {name}; print(*sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "batcher.client" in result.stdout.split()
    assert not set(result.stdout.split()) & (HEAVY | FORMS[name])


def test_every_public_name_is_there_and_no_other() -> None:
    for name in batcher.client.__all__:
        assert getattr(batcher.client, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Clients'"):
        batcher.client.Clients  # noqa: B018 - looking is what is tested
