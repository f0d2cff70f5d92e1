"""The process that reads a single file: `python -m batcher.models.describing.child RESULT < task`.

The task is a mapping in JSON (`describe.py`). The result goes to the file RESULT, since whatever
the model prints goes to the outputs.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from batcher.config.model_settings import ModelSettings
from batcher.config.single_file import SingleFile
from batcher.models.describing.examples import example_by_name
from batcher.models.describing.probe import explained, probe
from batcher.models.describing.python_file import describe_python
from batcher.models.describing.table_files import describe_table
from batcher.models.describing.wanted import Found, listed
from batcher.models.loading import extras_of

READ_BY_RUN = ("sklearn", "xgboost", "lightgbm")
"""Formats of tables whose files are read by their libraries."""

_PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal for this process when its parent is gone."""


def main() -> None:
    """Read the task, and write the result."""
    _end_with_the_server()
    task = json.load(sys.stdin)
    try:
        found = described(task)
        result: dict[str, Any] = {"values": found.values, "notes": found.notes}
    # Whatever the code of the model raises is the answer.
    except BaseException as err:
        result = {"error": explained(err)}
    Path(sys.argv[1]).write_text(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # threads that the model has left must not keep this process


def _end_with_the_server() -> None:
    """Have the system kill this process when the thread that waits for it is gone."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # of Linux alone
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def described(task: dict[str, Any]) -> Found:
    """Return what the file of a task says. Raises whatever its code raises."""
    sample = Path(task["sample"]) if task["sample"] else None
    file = Path(task["file"])
    single = SingleFile(file, task["entry"], task["inputs"], task["outputs"], sample)
    settings = ModelSettings(device="cpu", warmup=False, trusted=task["trusted"])
    with extras_of(task["format"]):
        found = _read(task["format"], single, settings, task["values"])
    if single.outputs and "outputs" not in found.values:
        found.values["outputs"] = listed(single.outputs, single.title)
    if sample is not None:
        found.values["sample"] = str(sample)
        names = [each["name"] for each in found.values["inputs"]]
        found.example = found.example or example_by_name(sample, names, file.parent)
    probe(found, single.title, file.parent, settings, None)
    return found


def _read(
    kind: str, single: SingleFile, settings: ModelSettings, values: dict[str, Any] | None
) -> Found:
    if kind == "python":
        return describe_python(single)
    if kind == "onnx":
        assert values is not None
        return Found(values, ["an ONNX graph: names, dtypes and shapes are the graph's"])
    if kind in READ_BY_RUN:
        return describe_table(single, kind, settings)
    # Here, since a model of ONNX must not need PyTorch.
    if kind == "keras":
        keras_files = import_module("batcher.models.describing.keras_files")
        return cast(Found, keras_files.describe_keras(single, settings))
    torch_files = import_module("batcher.models.describing.torch_files")
    found: Found = (
        torch_files.describe_export(single, settings)
        if kind == "export"
        else torch_files.describe_script(single)
    )
    return found


if __name__ == "__main__":
    main()
