"""Describe a single file, in a process of its own.

An ONNX file is read here, since that runs no code; its process is needed only where an axis beside
the batch is free.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from batcher.config.fixed_tensors import fill_in_fixed
from batcher.config.model_file import ModelDefinition
from batcher.config.onnx_definition import fill_in
from batcher.config.onnx_file import read_onnx
from batcher.config.pmml.fields import fill_in_pmml
from batcher.config.reading import Source
from batcher.config.single_file import SingleFile
from batcher.errors import ConfigError
from batcher.models.describing.file_kinds import kind_of
from batcher.models.describing.probe import definition_from
from batcher.models.describing.wanted import Found, listed

DESCRIBE_WAIT_S = 600.0
"""Seconds that the process may take, as many as a load has by default."""


def describe(single: SingleFile, trusted: bool) -> Found:
    """Return what the file says of its model, or what a run of it shows.

    Args:
        single: the file, and what is declared besides.
        trusted: whether code in an archive may run.

    Raises:
        ConfigError: the file is not there, holds no model, or does not say enough; the message says
            what to write.
    """
    kind = kind_of(single.file)
    if kind in _SAID_BY_FILE:
        return _said(single, kind)
    values = _onnx_values(single) if kind == "onnx" else None
    if values is not None and single.sample is not None:
        values["sample"] = str(single.sample)
    if values is not None and not _has_free_axis(values):
        return Found(values, ["an ONNX graph: names, dtypes and shapes are the graph's"])
    result = _run(task_of(single, kind, trusted, values), single)
    return Found(result["values"], result["notes"])


def task_of(
    single: SingleFile, kind: str, trusted: bool, values: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what the process is told; `values` are known of an ONNX file already."""
    return {
        "format": kind,
        "file": str(single.file),
        "entry": single.entry,
        "inputs": single.inputs,
        "outputs": single.outputs,
        "sample": str(single.sample) if single.sample is not None else "",
        "trusted": trusted,
        "values": values,
    }


def define_single(single: SingleFile, name: str, version: str, trusted: bool) -> ModelDefinition:
    """Return the definition of a single file. Raises ConfigError."""
    found = describe(single, trusted)
    return definition_from(found, name, version, single.file.parent)


_SAID_BY_FILE = {
    "torchserve": ("an archive of TorchServe", "inputs: the body of a request, as it came"),
    "pmml": ("a model of PMML", "inputs: the fields that the model takes"),
}
"""Formats whose inputs and outputs are known without a run of code, and the notes about them."""


def _said(single: SingleFile, kind: str) -> Found:
    """Return what `model.yaml` would say of such a file. Raises ConfigError."""
    values: dict[str, Any] = {"format": kind, "file": single.file.name}
    if single.sample is not None:
        values["sample"] = str(single.sample)
    source = Source(values, {(): single.title})
    fill_in_fixed(source)
    fill_in_pmml(source, single.file.parent)
    return Found(values, list(_SAID_BY_FILE[kind]))


def _onnx_values(single: SingleFile) -> dict[str, Any]:
    """Return what `model.yaml` would say of an ONNX file. Raises ConfigError."""
    try:
        read_onnx(single.file)
    except (OSError, ValueError, RecursionError) as err:
        raise ConfigError(
            f"{single.title}: expected an ONNX graph, as torch.onnx.export writes one; got a file "
            f"of another kind ({err}). Export the model again"
        ) from err
    values: dict[str, Any] = {"format": "onnx", "file": single.file.name}
    if single.inputs:
        values["inputs"] = listed(single.inputs, single.title)
    if single.outputs:
        values["outputs"] = listed(single.outputs, single.title)
    try:
        fill_in(Source(values, {(): single.title, ("file",): single.title}), single.file.parent)
    except ConfigError as err:
        raise ConfigError(
            f"{err}. A file by itself cannot say so: put it into a folder with a model.yaml"
        ) from err
    return values


def _has_free_axis(values: dict[str, Any]) -> bool:
    return any(-1 in each.get("shape", ()) for each in values["inputs"])


def _run(task: dict[str, Any], single: SingleFile) -> dict[str, Any]:
    """Return the result of the process. Raises ConfigError."""
    with TemporaryDirectory(prefix="batcher-describing-") as folder:
        file = Path(folder, "result.json")
        command = [sys.executable, "-P", "-m", "batcher.models.describing.child", str(file)]
        try:
            done = subprocess.run(
                command, input=json.dumps(task), text=True, stdout=2, timeout=DESCRIBE_WAIT_S
            )
        except subprocess.TimeoutExpired as err:
            raise ConfigError(
                f"{single.title}: expected a model that can be read within {DESCRIBE_WAIT_S:.0f} "
                "s; got none"
            ) from err
        if not file.is_file():
            raise ConfigError(
                f"{single.title}: expected a model that can be read; got the end of the process "
                f"that read it, with status {done.returncode}"
            )
        result: dict[str, Any] = json.loads(file.read_text())
    if "error" in result:
        raise ConfigError(result["error"])
    return result
