"""Triton's perf_analyzer, over both protocols, against the digits.

perf_analyzer measures, but here the program is a client: it reads metadata, configuration and
statistics, sends requests, and writes down every answer. The tests look at all answers, and not at
how fast they came.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from tests.end_to_end.processes import ROOT, Process, started
from tests.end_to_end.programs import ended, installed
from tests.end_to_end.test_digits import OCTETS, direct

PERF_ANALYZER = installed("perf_analyzer/perf_analyzer")
IMAGES = np.load(ROOT / "examples" / "digits" / "heldout.npz")["images"][:20].astype("<f4")
REQUESTS = 60
"""Requests of a run: each image three times."""
WRONG_VALUES = 99

Analyze = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with started(tmp_path_factory.mktemp("perf_analyzer"), "--grpc-port", "0") as process:
        yield process
        assert "Traceback" not in process.errors


@pytest.fixture
def analyze(server: Process, tmp_path: Path) -> Analyze:
    """Return a function that runs perf_analyzer with the images, and scores to expect, if any."""

    def analyze(protocol: str, *arguments: str, expected: Any = None) -> CompletedProcess[str]:
        document = {"data": [{"image": image.ravel().tolist()} for image in IMAGES]}
        if expected is not None:
            document["validation_data"] = [{"scores": row.tolist()} for row in expected]
        data = tmp_path / "data.json"
        data.write_text(json.dumps(document))
        address = (
            server.grpc_address if protocol == "grpc" else server.address.removeprefix("http://")
        )
        what = ("-m", "digits", "--input-data", data, "--request-count", str(REQUESTS))
        return ended(
            [PERF_ANALYZER, "-i", protocol, "-u", address, *what, *arguments],
            {"LD_LIBRARY_PATH": str(PERF_ANALYZER.parent)},
        )

    return analyze


@pytest.fixture(scope="module")
def alone(server: Process) -> Any:
    """Return the scores of each image in a batch of its own.

    perf_analyzer compares bits, which depend on the size of a batch.
    """

    def ask(image: Any) -> Any:
        request = Request(server.address + "/predict", image.tobytes(), {"Content-Type": OCTETS})
        with urlopen(request, timeout=30) as answer:
            return np.frombuffer(answer.read(), "<f4")

    scores = np.stack([ask(image) for image in IMAGES])
    np.testing.assert_allclose(scores, direct(IMAGES), atol=1e-5, rtol=0)
    return scores


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_finds_the_values_that_it_is_told_to_expect(
    analyze: Analyze, alone: Any, protocol: str
) -> None:
    result = analyze(protocol, expected=alone)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Request count: {REQUESTS}\n" in result.stdout


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_would_notice_a_single_wrong_value(analyze: Analyze, alone: Any, protocol: str) -> None:
    wrong = alone.copy()
    wrong[7, 3] += 0.5
    result = analyze(protocol, expected=wrong)
    assert result.returncode == WRONG_VALUES, result.stdout + result.stderr
    assert "Output doesn't match expected output" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("protocol", "arguments"),
    [
        ("http", ""),
        ("http", "-b 8"),
        ("http", "--concurrency-range 8"),
        ("http", "-a --concurrency-range 8"),
        ("http", "--input-tensor-format json --output-tensor-format json"),
        ("grpc", ""),
        ("grpc", "-b 8"),
        ("grpc", "--concurrency-range 8"),
        ("grpc", "-a --concurrency-range 8"),
        ("grpc", "-a --streaming --concurrency-range 4"),
        ("grpc", "--grpc-compression-algorithm gzip"),
    ],
)
def test_every_answer_is_the_models_own_and_is_counted(
    server: Process, analyze: Analyze, tmp_path: Path, protocol: str, arguments: str
) -> None:
    written, before = tmp_path / "profile.json", counted(server)
    result = analyze(protocol, *arguments.split(), "--profile-export-file", str(written))
    assert result.returncode == 0, result.stdout + result.stderr
    batch = 8 if "-b" in arguments.split() else 1
    (experiment,) = json.loads(written.read_text())["experiments"]
    assert len(experiment["requests"]) == REQUESTS
    right = direct(IMAGES)
    for request in experiment["requests"]:
        (answer,) = request["response_outputs"]
        # perf_analyzer writes down the first row of a batch that it sent; the other rows are those
        # that come next in its data.
        first = (
            np.abs(IMAGES.reshape(-1, 64) - np.array(request["request_inputs"]["image"]))
            .max(axis=1)
            .argmin()
        )
        sent = np.arange(first, first + batch) % len(IMAGES)
        np.testing.assert_allclose(
            np.reshape(answer["scores"], (batch, 10)), right[sent], atol=1e-5, rtol=0
        )
    assert counted(server) - before == Counter(rows=REQUESTS * batch, requests=REQUESTS)
    shown = server_figures(result.stdout)
    assert shown["rows"] == shown["requests"] * batch
    assert 0 < shown["executions"] <= shown["requests"] <= REQUESTS
    assert shown["infer"] > 0


def counted(server: Process) -> Counter[str]:
    """Return the rows and the requests that the server has counted."""
    (entry,) = json.loads(server.get("/v2/models/digits/stats"))["model_stats"]
    return Counter(
        rows=entry["inference_count"], requests=entry["inference_stats"]["success"]["count"]
    )


def server_figures(output: str) -> dict[str, int]:
    """Return the server's statistics in the output of perf_analyzer.

    They are differences to the statistics that perf_analyzer read after some first requests.
    """
    found = re.search(
        r"Server: *\n *Inference count: (?P<rows>\d+)\n *Execution count: (?P<executions>\d+)\n"
        r" *Successful request count: (?P<requests>\d+)\n"
        r" *Avg request latency: .*queue \d+ usec .*compute infer (?P<infer>\d+) usec",
        output,
    )
    assert found, output
    return {name: int(number) for name, number in found.groupdict().items()}
