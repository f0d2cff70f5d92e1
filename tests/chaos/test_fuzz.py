"""Thousands of mutated requests, the same in each run; `benchmarks/fuzz.py` sends a million.

How long a turn of the loop takes is measured there too, and bounded only there: tests share their
machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from benchmarks.fuzz import PARTS, Part, fuzz
from benchmarks.fuzzing.corpus import MODELS, Sample, samples
from benchmarks.fuzzing.http_sessions import Probe, Session, judge, make_session
from benchmarks.fuzzing.mutator import mutated
from benchmarks.hostile_kinds.repository import write_models
from benchmarks.reporting import Row
from tests.end_to_end.processes import Process, one_answer, started

REQUESTS = 3000
SAMPLES = samples()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("fuzz")
    write_models(folder / "models", *MODELS)
    with started(folder, "--set", f"model_repository={folder / 'models'}") as process:
        yield process


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    """Return what each part has found; the parts share two servers, with TLS and without."""
    return {row["part"]: row for row in fuzz(list(PARTS), REQUESTS)}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_no_mutated_request_makes_the_server_fail_or_harms_a_right_one(
    rows: dict[str, Row], part: Part
) -> None:
    row = rows[part.name]
    assert row["failed sessions"] == 0, "the names of the sessions are in the output"
    assert row["requests"] >= round(REQUESTS * part.share)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.method} {sample.path}")
def test_the_requests_that_mutation_begins_with_are_right(server: Process, sample: Sample) -> None:
    with server.connect() as connection:
        connection.sendall(sample.head(len(sample.body)) + sample.body)
        status = one_answer(connection).status
    assert status == 200 if sample.method == "POST" else status < 500


def test_a_seed_gives_the_same_mutations_again_and_another_seed_others() -> None:
    first, again, other = (
        [mutated(random.Random(seed), b"a" * 99, [b"b"]) for _ in range(3)] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert make_session("http:1:5") == make_session("http:1:5") != make_session("http:1:6")


PROBES = (Probe("first", b"\1" * 256), Probe("last", b"\2" * 256))


def answer(probe: Probe, body: bytes, status: int = 200) -> bytes:
    head = f"HTTP/1.1 {status} OK\r\nX-Request-Id: {probe.name}\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def wrong(data: bytes, framed: bool = True) -> str:
    return judge(Session(PROBES, (), framed, False), data)[1]


def test_each_right_request_must_get_its_own_result() -> None:
    first, last = PROBES
    assert wrong(answer(first, first.row) + answer(last, last.row)) == ""
    assert "first request" in wrong(answer(first, last.row) + answer(last, last.row))
    assert "last request" in wrong(answer(first, first.row) + answer(last, first.row))
    assert "last request" in wrong(answer(first, first.row))
    assert wrong(answer(first, first.row), framed=False) == ""
    strange = answer(last, b"\3" * len(last.row))
    assert "nobody sent" in wrong(answer(first, first.row) + strange, framed=False)


def test_a_500_and_an_answer_that_cannot_be_read_are_wrong() -> None:
    first, last = PROBES
    broken = answer(Probe("other", b""), b'{"error": "x"}', 500)
    refused = answer(Probe("other", b""), b'{"error": "x"}', 503)
    assert "500" in wrong(answer(first, first.row) + broken + answer(last, last.row))
    assert wrong(answer(first, first.row) + refused + answer(last, last.row)) == ""
    assert "no client can read" in wrong(b"HTTP/1.1 abc\r\n\r\n")
    assert "cut off" in wrong(answer(first, first.row) + b"HTTP/1.1 200", framed=False)
