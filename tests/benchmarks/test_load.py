"""The load generator as a program, and `run_load`, which starts the program."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from benchmarks import load
from benchmarks.load import LoadError, LoadOptions, LoadResult, main, run_load
from benchmarks.loadgen.options import parse
from tests.benchmarks.loadgen.doubles import URL, result_of, settled


@pytest.mark.parametrize(("max_lag_ms", "status"), [(2.0, 0), (0.4, 3)])
def test_an_invalid_run_exits_with_status_3(
    max_lag_ms: float,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(load, "_run", lambda options: result_of(settled(answered=1), max_lag_ms))
    assert main([URL]) == status
    assert ("INVALID" in capsys.readouterr().err) == (status == 3)


def test_json_on_standard_output_is_alone_there(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    result = result_of(settled(answered=1))
    monkeypatch.setattr(load, "_run", lambda options: result)
    assert main([URL, "--json", "-"]) == 0
    captured = capsysbinary.readouterr()
    assert LoadResult.from_json(captured.out) == result
    assert b"latency" in captured.err


def test_a_load_that_cannot_run_says_why_and_exits_with_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: LoadOptions) -> LoadResult:
        raise LoadError("cannot connect")

    monkeypatch.setattr(load, "_run", fail)
    assert main([URL]) == 1
    assert "cannot connect" in capsys.readouterr().err


class Process:
    """Stands for `subprocess.run`."""

    def __init__(self, status: int, out: bytes = b"", err: bytes = b"") -> None:
        self.done = subprocess.CompletedProcess([], status, out, err)
        self.command: list[str] = []
        self.stdin = b""

    def __call__(
        self, command: list[str], input: bytes, **_: Any
    ) -> subprocess.CompletedProcess[Any]:
        self.command, self.stdin = command, input
        return self.done


@pytest.mark.parametrize("status", [0, 3])
def test_run_load_hands_the_options_over_and_reads_the_result(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = result_of(settled(answered=1))
    process = Process(status, out=result.to_json())
    monkeypatch.setattr(subprocess, "run", process)
    options = LoadOptions(URL, rate=5.0, body=b"abc", method="POST")
    assert run_load(options) == result
    assert parse(process.command[2:], {"-": process.stdin}.__getitem__) == (options, "-")


@pytest.mark.parametrize("status", [1, 2, -9])
def test_run_load_raises_what_the_generator_said(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", Process(status, err=b"load: cannot connect\n"))
    with pytest.raises(LoadError, match="cannot connect"):
        run_load(LoadOptions(URL))
