"""The harness of `make gpu`: figures, time limits and traces, without a GPU and without servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.gpu import figures, parts
from benchmarks.gpu.figures import Figure, Figures
from benchmarks.gpu.parts import cuda_tests
from benchmarks.gpu.run import PARTS, told
from benchmarks.gpu.served_models import is_known, why_plain
from benchmarks.gpu.trace import computing, hidden_share, host_copies, merged, stalls

LINE = orjson.dumps(Figure("p", "what", 1.0).row()) + b"\n"


class Part:
    """A part that has told one figure and then hangs, or ends with a status."""

    def __init__(self, status: int, hangs: bool = False) -> None:
        self.ended = threading.Event()
        self._status = status
        if not hangs:
            self.ended.set()

    @property
    def stdout(self) -> Iterator[bytes]:
        yield b"what a library prints\n"
        yield LINE
        self.ended.wait()

    def wait(self) -> int:
        return self._status


def figures_of(part: Part, tmp_path: Path, limit_s: float = 60.0) -> list[tuple[str, Any, str]]:
    log = tmp_path / "log"
    log.write_text("Traceback\nValueError: no such thing\n\n")
    process: Any = part
    found = told("p", process, limit_s, log, lambda _: part.ended.set())
    return [(figure.what, figure.value, figure.met) for figure in found]


def test_the_parts_take_eight_minutes_at_most_and_are_all_there() -> None:
    assert sum(PARTS.values()) <= 480
    folder = Path(str(parts.__file__)).parent
    assert {path.stem for path in folder.glob("[!_]*.py")} == set(PARTS)


def test_a_part_that_ends_well_has_the_figures_that_it_told(tmp_path: Path) -> None:
    assert figures_of(Part(0), tmp_path) == [("what", 1.0, "-")]


def test_a_part_that_fails_is_named_with_the_last_line_of_its_log(tmp_path: Path) -> None:
    failed = ("ended early", "ValueError: no such thing", "no")
    assert figures_of(Part(1), tmp_path) == [("what", 1.0, "-"), failed]


def test_a_part_that_hangs_is_ended_and_keeps_what_it_told(tmp_path: Path) -> None:
    late = ("ended by its time limit", "0", "no")
    assert figures_of(Part(-15, hangs=True), tmp_path, limit_s=0) == [("what", 1.0, "-"), late]


@pytest.mark.parametrize(
    ("is_dry", "value", "bound", "met"),
    [
        (False, 0.96, {"least": 0.95}, "yes"),
        (False, 0.94, {"least": 0.95}, "no"),
        (False, 3, {"most": 2}, "no"),
        (False, 2, {"most": 2}, "yes"),
        (False, 2, {}, "-"),
        (True, 0.1, {"least": 0.95}, "-"),
    ],
)
def test_a_figure_is_judged_by_its_bound_but_not_on_a_dry_run(
    is_dry: bool,
    value: float,
    bound: dict[str, float],
    met: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(figures, "DRY", is_dry)
    Figures("p").add("what", value, **bound)
    assert orjson.loads(capsys.readouterr().out)["met"] == met


def test_the_result_of_each_cuda_test_is_told_as_soon_as_pytest_prints_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [
        "tests/models/test_a.py::test_graphs[of bf16] PASSED           [ 25%]\n",
        "tests/models/test_a.py::test_streams FAILED                   [ 50%]\n",
        "tests/models/test_b.py::test_use SKIPPED (no extra gpu)       [ 75%]\n",
        "== 1 failed, 1 passed, 1 skipped in 3.2s ==\n",
        "\n",
    ]
    assert cuda_tests.told(Figures("p"), lines) == lines[3].strip()
    told_figures = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["what"], each["value"], each["met"]) for each in told_figures] == [
        ("test_graphs[of bf16]", "passed", "yes"),
        ("test_streams", "failed", "no"),
        ("test_use", "left out: skipped", "-"),
    ]


def test_a_setting_is_known_by_its_name_and_its_value() -> None:
    assert is_known("compile", "aoti")
    assert not is_known("compile", "never")
    assert not is_known("compiled", True)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("loading\ncompiling\nwarming up, batch size 4", ""),
        ("no CUDA graphs: it waits. It is served as it is", "no CUDA graphs: it waits"),
        (
            "model m: not compiled: no\n  g++ here. It is served\nready",
            "not compiled: no g++ here",
        ),
        ("note: no CUDA graphs: kernels take longer", "no CUDA graphs: kernels take longer"),
    ],
)
def test_a_load_tells_why_a_model_runs_plainly(log: str, reason: str) -> None:
    assert why_plain(log) == reason


@pytest.mark.parametrize(
    ("copies", "compute", "share"),
    [
        ([], [(0, 9)], None),
        ([(0, 4)], [], 0),
        ([(0, 4)], [(0, 9)], 1),
        ([(0, 4), (6, 10)], [(2, 8)], 0.5),
        ([(0, 10)], [(1, 3), (2, 4), (6, 7)], 0.4),
        ([(8, 9), (0, 1)], [(8, 9)], 0.5),
    ],
    ids=["none", "alone", "under compute", "half", "many kernels", "in any order"],
)
def test_the_share_of_copies_under_compute(
    copies: list[tuple[float, float]], compute: list[tuple[float, float]], share: float | None
) -> None:
    assert hidden_share(copies, compute) == share


def test_a_trace_has_spans_and_calls_that_stop_the_device() -> None:
    events = [
        {"cat": "cuda_runtime", "name": "cudaDeviceSynchronize", "ts": 0, "dur": 1},
        {"cat": "kernel", "name": "gemm", "ts": 1, "dur": 2},
        {"cat": "kernel", "name": "gemm", "ts": 2, "dur": 3},
        {"cat": "gpu_memcpy", "name": "Memcpy HtoD", "ts": 7, "dur": 1},
        {"cat": "gpu_memcpy", "name": "Memcpy DtoD (Device -> Device)", "ts": 8, "dur": 1},
        {"cat": "cuda_runtime", "name": "cudaMalloc", "ts": 2, "dur": 1},
        {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 2, "dur": 1},
        {"cat": "cuda_runtime", "name": "cudaDeviceSynchronize", "ts": 9, "dur": 1},
        {"name": "process_name", "ph": "M"},
    ]
    assert host_copies(events) == [(7, 8)]
    assert merged(computing(events)) == [(1, 5), (8, 9)]
    # what the profiler waits for before the first kernel and after the last does not count
    assert stalls(events) == {"cudaMalloc": 1}
    assert stalls(events[:1]) == {}
