"""KServe's own clients against the digits, in a process of their own."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.processes import ROOT, started
from tests.end_to_end.programs import ended
from tests.end_to_end.test_digits import direct

pytestmark = pytest.mark.skipif(find_spec("kserve") is None, reason="extra test-clients")
SCRIPT = Path(__file__).with_name("kserve_client.py")
HELDOUT = np.load(ROOT / "examples" / "digits" / "heldout.npz")
IMAGES = HELDOUT["images"][:5].astype("<f4")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what the clients got; they take seconds to import, so they run once for all tests."""
    with started(tmp_path_factory.mktemp("kserve"), "--grpc-port", "0") as server:
        result = ended([sys.executable, "-P", SCRIPT, server.address, server.grpc_address])
        assert result.returncode == 0, result.stderr
        assert "Traceback" not in server.errors
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_is_told_what_lives_and_what_is_ready(results: Any, protocol: str) -> None:
    answers = {
        name: results[protocol][name] for name in ("live", "ready", "digits ready", "other ready")
    }
    assert answers == {"live": True, "ready": True, "digits ready": True, "other ready": False}


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [
        ("http", "binary"),
        ("http", "json"),
        ("http", "binary, binary out"),
        ("http", "json, binary out"),
        ("grpc", "raw"),
        ("grpc", "typed"),
    ],
)
def test_every_way_to_send_a_tensor_gives_the_models_own_scores(
    results: Any, protocol: str, kind: str
) -> None:
    answer = results[protocol]["answers"][kind]
    assert (answer["id"], answer["model"]) == ("a", "digits")
    np.testing.assert_allclose(answer["scores"], direct(IMAGES), atol=1e-5, rtol=0)
    assert np.argmax(answer["scores"], axis=1).tolist() == HELDOUT["labels"][:5].tolist()
