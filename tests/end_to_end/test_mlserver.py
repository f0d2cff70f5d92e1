"""MLServer's `infer` command line against the digits.

Requests in a file of lines, answers in another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.processes import ROOT, Process, started
from tests.end_to_end.programs import ended, installed
from tests.end_to_end.test_digits import direct

MLSERVER = installed("mlserver/bin/mlserver")
HELDOUT = np.load(ROOT / "examples" / "digits" / "heldout.npz")
IMAGES, LABELS = HELDOUT["images"][:40].astype("<f4"), HELDOUT["labels"][:40]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with started(tmp_path_factory.mktemp("mlserver")) as process:
        yield process
        assert "Traceback" not in process.errors


@pytest.mark.parametrize(
    "arguments",
    [(), ("--binary-data",), ("--batch-size", "8")],
    ids=["json", "binary", "micro-batches"],
)
def test_each_line_of_a_file_is_answered_with_its_own_digit(
    server: Process, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    requests, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    image = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32"}
    lines = [
        {"id": str(at), "inputs": [image | {"data": one.ravel().tolist()}]}
        for at, one in enumerate(IMAGES)
    ]
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    address = server.address.removeprefix("http://")
    files = ("-i", requests, "-o", answers, "--workers", "2")
    result = ended([MLSERVER, "infer", "-u", address, "-m", "digits", *files, *arguments])
    assert result.returncode == 0, result.stderr
    answers = sorted(
        (json.loads(line) for line in answers.read_text().splitlines()),
        key=lambda one: int(one["id"]),
    )
    assert [one["id"] for one in answers] == [line["id"] for line in lines]
    assert {one["model_name"] for one in answers} == {"digits"}
    scores = np.array([one["outputs"][0]["data"] for one in answers])
    np.testing.assert_allclose(scores, direct(IMAGES), atol=1e-5, rtol=0)
    assert scores.argmax(axis=1).tolist() == LABELS.tolist()
