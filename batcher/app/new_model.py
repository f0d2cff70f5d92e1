"""`batcher init DIR`: the folder of a model, ready to be served, checked and filled in.

    model.yaml       what the model is, with comments
    model.py         a class to fill in, or the file of `--from` with what it needs beside it
    sample.json      a request, which `batcher check` and warm-up run
    test_model.py    a test for pytest: the model keeps the contract on its sample

Nothing that is there is written over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any, NamedTuple

import numpy as np

from batcher.app.checking.samples import random_rows
from batcher.app.new_model_files import files_of
from batcher.config.reading import scalar
from batcher.config.single_file import SingleFile, split_entry
from batcher.core.spec import Array, ModelSpec, datatype
from batcher.errors import ConfigError
from batcher.models.describing.describe import describe
from batcher.models.describing.probe import definition_from
from batcher.models.describing.wanted import Found, Values, listed
from batcher.models.sample import sample_of_file

SAMPLE_ROWS = 2
"""Rows of the sample: with two that differ, an answer that went to the wrong row is noticed."""

MAX_SAMPLE_CHARS = 1 << 20
"""Characters of a sample: a request of a megabyte of text is no example that anybody reads."""

_PLAIN = re.compile(r"[A-Za-z0-9_./:-]+")
_HEAD = """\
# What the model is. How it is run (device, batch size, worker) stands in config.yaml, below
# `models: {NAME: …}`.
"""
_COMMENTS = {
    "format": "python, torchscript, export or onnx",
    "class": "module:Class, of a file beside this one, or of an installed library",
    "file": "the model's file, beside this one",
    "weights": "weights of the torch.nn.Module",
    "gradients": "PyTorch keeps what it needs for gradients",
    "sample": "a request; `batcher check --model` of this folder runs it",
}
_TENSORS = {
    "inputs": "what clients send: dtype, and the shape of one row; -1 where any size will do",
    "outputs": "what clients get",
}
_CLASS = '''\
"""The model: fill in `load` and `predict`."""

import numpy as np


class Model:
    def load(self, device):
        """Load weights here: this runs once, before the first request."""

    def predict(self, inputs):
        """Return the outputs of a batch; `inputs` are arrays by name, whose first axis is rows."""
        rows = len(inputs[{first}])
        return {{
{outputs}
        }}
'''
_MODULE = '''\
"""The model: fill in the layers and `forward`."""

import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, {arguments}):
        """Return the outputs of a batch; the first axis of each tensor is rows."""
        rows = len({first})
        return {{
{outputs}
        }}
'''
_TEST = '''\
"""The model answers its sample, with the server's own checks: run by `pytest`."""

from pathlib import Path

from batcher.testing import batcher_model

FOLDER = Path(__file__).parent


def test_the_model_answers_its_sample(batcher_model):
    model = batcher_model(FOLDER)
    outputs = model.post((FOLDER / "sample.json").read_bytes(), "application/json")
    assert set(outputs) == NAMES
'''
_TEST_OF_BLANKS = '''\
"""The model can be loaded, and runs on blank rows: run by `pytest`."""

from pathlib import Path

from batcher.testing import batcher_model

FOLDER = Path(__file__).parent


def test_the_model_loads_and_warms_up(batcher_model):
    assert batcher_model(FOLDER)
'''


Files = dict[str, "str | Path"]
"""By the name of a file: its text, or the file to copy."""


class Wanted(NamedTuple):
    """What is to be written.

    Attributes:
        source: the file that the model is made of, with `:Class` if need be; None for a new class.
        kind: of a new class, `class` or `module`.
        inputs: tensors by name, as texts; None where the file says them.
        outputs: the same.
        sample: a first example for the file; None without one.
    """

    source: Path | None = None
    kind: str = "class"
    inputs: Mapping[str, str] | None = None
    outputs: Mapping[str, str] | None = None
    sample: Path | None = None


def write_folder(folder: Path, wanted: Wanted) -> list[str]:
    """Write the folder of a model; return the names of the files.

    Raises:
        ConfigError: the file does not say what it takes, or a file is there already.
    """
    folder = folder.absolute()
    if folder.is_file():
        raise ConfigError(f"{folder}: expected a new folder, or an empty one; got a file")
    found, files = _described(wanted)
    home = folder if wanted.source is None else split_entry(wanted.source.absolute())[0].parent
    spec = definition_from(found, folder.name, "1", home).spec
    if sample := _sample(spec, wanted.sample):
        found.values["sample"] = "sample.json"
        files["sample.json"] = sample
    files["model.yaml"] = _model_yaml(found.values)
    names = ", ".join(json.dumps(each["name"]) for each in found.values["outputs"])
    test = _TEST if sample else _TEST_OF_BLANKS
    files["test_model.py"] = test.replace("NAMES", f"{{{names}}}")
    _write(folder, files)
    return sorted(files)


def _write(folder: Path, files: Files) -> None:
    """Write `files`, none of which may be there. Raises ConfigError."""
    if there := [name for name in files if (folder / name).exists()]:
        raise ConfigError(
            f"{folder}: expected a folder without {', '.join(there)}; got one with: name another "
            "folder, or move the file away"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, Path):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copyfile(content, folder / name)
        else:
            (folder / name).write_text(content)


def _described(wanted: Wanted) -> tuple[Found, Files]:
    """Return what is known of the model, and its own files. Raises ConfigError."""
    if wanted.source is None:
        return _new_class(wanted)
    file, entry = split_entry(wanted.source.absolute())
    sample = wanted.sample.absolute() if wanted.sample is not None else None
    found = describe(SingleFile(file, entry, wanted.inputs, wanted.outputs, sample), False)
    found.values.pop("sample", None)  # the sample of the folder is a request
    files: Files = {**files_of(file)}
    if weights := found.values.get("weights"):
        found.values["weights"] = Path(weights).name
        files[Path(weights).name] = file.parent / weights
    return found, files


def _new_class(wanted: Wanted) -> tuple[Found, Files]:
    """Return a class to fill in, which runs as it is. Raises ConfigError."""
    inputs = listed(wanted.inputs or {"x": "FP32[4]"}, "--input")
    outputs = listed(wanted.outputs or {"y": "FP32[4]"}, "--output")
    is_module = wanted.kind == "module"
    if is_module and any(each["dtype"] == "BYTES" for each in (*inputs, *outputs)):
        raise ConfigError("--kind: expected class for BYTES, which PyTorch has no tensors of")
    template, blank = (_MODULE, _blank_tensor) if is_module else (_CLASS, _blank_array)
    lines = [f"            {json.dumps(each['name'])}: {blank(each)}," for each in outputs]
    names = [str(each["name"]) for each in inputs]
    if is_module and not all(name.isidentifier() for name in names):
        raise ConfigError(f"--input: expected names of parameters; got {', '.join(names)}")
    first = names[0] if is_module else json.dumps(names[0])
    text = template.format(first=first, arguments=", ".join(names), outputs="\n".join(lines))
    values = {"format": "python", "class": "model:Model", "inputs": inputs, "outputs": outputs}
    return Found(values, []), {"model.py": text}


def _blank_array(output: Values) -> str:
    """Return the expression of blank rows of an output, as an array."""
    if output["dtype"] == "BYTES":
        return f'np.full({_shape(output)}, b"", object)'
    return f"np.zeros({_shape(output)}, {json.dumps(datatype(output['dtype']).alias)})"


def _blank_tensor(output: Values) -> str:
    return f"torch.zeros({_shape(output)}, dtype=torch.{datatype(output['dtype']).alias})"


def _shape(output: Values) -> str:
    sizes = [str(max(size, 1)) for size in output["shape"]]
    return f"({', '.join(['rows', *sizes])})" if sizes else "(rows,)"


def _sample(spec: ModelSpec, example: Path | None) -> str:
    """Return a request in JSON; empty where JSON does not hold the inputs, or not in reason.

    Its rows are the first ones of the `example`, or random ones without it.
    """
    if any(tensor.datatype.name == "BF16" for tensor in spec.inputs):
        return ""
    if example is not None:
        shown = sample_of_file(example, spec, is_example=True)
        inputs = {name: _plain(array[:SAMPLE_ROWS]) for name, array in shown.items()}
    else:
        rows = random_rows(spec).own[:SAMPLE_ROWS]
        inputs = {name: _plain(np.concatenate([row[name] for row in rows])) for name in rows[0]}
    text = json.dumps({"inputs": inputs})
    return text + "\n" if len(text) <= MAX_SAMPLE_CHARS else ""


def _plain(array: Array) -> Any:
    if array.dtype.hasobject:
        return (
            np.array([text.decode() for text in array.flat], object).reshape(array.shape).tolist()
        )
    return np.round(array, 4).tolist() if array.dtype.kind == "f" else array.tolist()


def _model_yaml(values: Values) -> str:
    """Return `values` as a `model.yaml` with comments."""
    said = [key for key in _COMMENTS if key in values]
    lines = [_HEAD, *(f"{key}: {_text(values[key])} # {_COMMENTS[key]}\n" for key in said)]
    for key, comment in _TENSORS.items():
        lines.append(f"{key}: # {comment}\n")
        for tensor in values[key]:
            lines.append(f"  - name: {_text(tensor['name'])}\n")
            rest = [f"    {name}: {_text(tensor[name])}\n" for name in tensor if name != "name"]
            lines += rest
    return "".join(lines)


def _text(value: Any) -> str:
    """Return `value` as YAML in one line: JSON, but for plain words."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and scalar(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
