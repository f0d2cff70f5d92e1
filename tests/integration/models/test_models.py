"""Models of real libraries are served from folders of a few lines, and answer as the libraries do.

One server has all models whose libraries are installed (`make models` installs all of them). So
their loads, their imports and their process-wide settings stand side by side, too.
"""

from __future__ import annotations

import ast
import csv
import io
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from batcher.client import Client
from batcher.core.spec import Array
from tests.end_to_end.processes import Process, started
from tests.integration.models import packaged, pictures, tables, texts
from tests.integration.models.case import FOLDERS, Case, Reference

CASES = [*pictures.CASES, *texts.CASES, *tables.CASES, *packaged.CASES]
EACH_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

MAX_LINES = 15
"""Lines of Python that a user of a library may have to write."""

LOAD_LIMIT_S = 600.0
"""Seconds until all models are ready; thirty seconds are usual."""

RELATIVE, ABSOLUTE = 1e-3, 1e-3
"""How far an answer may be from the library's own, which adds in another order for other rows."""


@dataclass(frozen=True)
class Served:
    """A server of all models that can be served here.

    Attributes:
        process: the server.
        references: what the libraries answer themselves, by the names of the models.
        skipped: why models are not served, by their names.
        failed: why models could not be loaded, by their names.
    """

    process: Process
    references: dict[str, Reference]
    skipped: dict[str, str]
    failed: dict[str, str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Write the files of each model with its library, and serve all models."""
    folder = tmp_path_factory.mktemp("models")
    references, skipped = {}, {}
    for case in CASES:
        if reason := case.unusable():
            skipped[case.name] = reason
            continue
        shutil.copytree(case.folder, folder / case.name)
        references[case.name] = case.prepare(folder / case.name / "1")
    if not references:
        pytest.skip(f"no library is installed: {next(iter(skipped.values()))}")
    settings = (f"model_repository={folder}", "strict_start=false", "defaults.max_batch_size=8")
    pairs = [part for setting in settings for part in ("--set", setting)]
    with started(folder.parent, *pairs, ready=False) as process:
        process.wait_ready(LOAD_LIMIT_S)
        failed = dict(re.findall(r"^model (\w+)/1: failed: (.*)$", process.errors, re.MULTILINE))
        yield Served(process, references, skipped, failed)


def reference(served: Served, case: Case) -> Reference:
    """Return what the library of `case` answers; skips the test where it is not installed."""
    if case.name in served.skipped:
        pytest.skip(served.skipped[case.name])
    if case.name in served.failed:
        pytest.fail(served.failed[case.name])
    return served.references[case.name]


def row(arrays: dict[str, Array], index: int) -> dict[str, Array]:
    """Return one row of each array, as an array of one row."""
    return {name: array[index : index + 1] for name, array in arrays.items()}


def assert_equal(got: Any, expected: Any) -> None:
    """Check that a row of the server is that of the library; numbers need not be exact."""
    array = np.asarray(expected)
    assert np.shape(got) == array.shape
    if array.size and array.dtype.kind == "f":
        np.testing.assert_allclose(got, array, RELATIVE, ABSOLUTE)
    else:
        assert np.asarray(got).tolist() == array.tolist()


def test_all_models_load_side_by_side(served: Served) -> None:
    assert served.failed == {}


@EACH_CASE
def test_requests_of_one_row_get_the_answer_of_the_library(served: Served, case: Case) -> None:
    made = reference(served, case)
    inputs, expected = made.inputs, made.answer(made.inputs)
    rows = range(len(next(iter(inputs.values()))))
    with (
        Client(served.process.address, timeout=LOAD_LIMIT_S, retries=0) as client,
        ThreadPoolExecutor(len(rows)) as pool,
    ):
        alone = [client.infer(case.name, row(inputs, index)) for index in rows]
        together = list(pool.map(lambda index: client.infer(case.name, row(inputs, index)), rows))
    for index in rows:
        for result in (alone[index], together[index]):
            for name, values in expected.items():
                assert_equal(result.outputs[name][0], values[index])


@EACH_CASE
def test_a_request_of_all_rows_gets_the_answer_of_the_library(served: Served, case: Case) -> None:
    made = reference(served, case)
    if case.ragged:
        pytest.skip("rows that differ in length are asked for one by one")
    inputs, expected = made.inputs, made.answer(made.inputs)
    with Client(served.process.address, timeout=LOAD_LIMIT_S, retries=0) as client:
        result = client.infer(case.name, inputs)
    for name, values in expected.items():
        for got, value in zip(result.outputs[name], values, strict=True):
            assert_equal(got, value)


def test_a_table_with_holes_is_taken_as_csv(served: Served) -> None:
    case = next(case for case in CASES if case.name == "prices")
    made = reference(served, case)
    rows = zip(*made.inputs.values(), strict=True)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(made.inputs)
    for area, rooms, city in rows:
        cells = ["" if np.isnan(number) else number for number in (area, rooms)]
        writer.writerow([*cells, city.decode()])
    request = Request(
        f"{served.process.address}/models/prices/predict",
        text.getvalue().encode(),
        {"Content-Type": "text/csv", "Accept": "text/csv; header=absent"},
    )
    with urlopen(request, timeout=30) as answer:
        prices = [float(line) for line in answer.read().split()]
    assert_equal(prices, made.answer(made.inputs)["price"])


@EACH_CASE
def test_a_model_takes_a_few_lines_of_own_code(case: Case) -> None:
    lines: set[int] = set()
    for file in case.folder.rglob("*.py"):
        for statement in ast.parse(file.read_text()).body:
            if not isinstance(statement, ast.Expr):  # the first of them says what the model is
                lines |= code_lines(statement)
    assert len(lines) <= MAX_LINES


def code_lines(statement: ast.stmt) -> set[int]:
    """Return the lines in which something of `statement` begins."""
    return {node.lineno for node in ast.walk(statement) if hasattr(node, "lineno")}


def test_every_folder_is_a_case() -> None:
    assert sorted(path.name for path in Path(FOLDERS).iterdir()) == sorted(
        case.name for case in CASES
    )
