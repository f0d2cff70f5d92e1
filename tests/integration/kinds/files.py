"""Models of every kind as files of each format, and how each is called without a server."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO
from textwrap import dedent
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import torch

from batcher.config.model_file import ModelDefinition
from batcher.core.spec import Array
from tests.support.kinds import KINDS, Kind
from tests.support.model_folders import Folders

Call = Callable[[Mapping[str, Array]], Mapping[str, Any]]
"""Calls a model directly: inputs by name to outputs by name."""

_HEAD = """from __future__ import annotations

from typing import Any

import numpy as np
import torch

Values = Any


"""


def define(folders: Folders, kind: Kind, format_name: str) -> ModelDefinition:
    """Write the version folder of `kind` in the format of that name, and read the folder."""
    write, head = _WRITERS[format_name]
    files = write(kind)
    name = "make" if kind.by_function else _made_by(kind, format_name).__name__
    text = head.format(file=next(iter(files)), name=name)
    if kind.gradients and format_name in ("python class", "nn.Module", "torchscript"):
        text += "\ngradients: true"
    return folders.define(text, files, inputs=kind.inputs, outputs=kind.outputs)


def directly(kind: Kind, format_name: str) -> Call:
    """Return what calls the model of `kind` without a server."""
    if format_name == "python class":
        return _of_class(kind.predictor())
    if format_name == "onnx":
        return _of_graph(_graph(kind))
    return _of_module(_loaded(kind, format_name), kind)


def _made_by(kind: Kind, format_name: str) -> type:
    made_by = kind.predictor if format_name == "python class" else kind.module
    assert made_by is not None
    return made_by


def _source(kind_of_class: type) -> dict[str, str | bytes]:
    own = dedent(inspect.getsource(kind_of_class))
    return {"code.py": f"{_HEAD}{own}\n\ndef make():\n    return {kind_of_class.__name__}()\n"}


def _module(kind: Kind) -> torch.nn.Module:
    assert kind.module is not None
    made: torch.nn.Module = kind.module().eval()
    return made


@lru_cache(maxsize=len(KINDS))
def _script(name: str) -> bytes:
    file = BytesIO()
    torch.jit.save(torch.jit.script(_module(_kind(name))), file)
    return file.getvalue()


@lru_cache(maxsize=len(KINDS))
def _export(name: str) -> bytes:
    kind = _kind(name)
    module = _module(kind)
    rows = torch.export.Dim("rows", min=1, max=1024)
    length = torch.export.Dim("length", min=1, max=1024)
    names = _parameters(module)
    example = {
        own: _example(kind.requests[0][sent])
        for own, sent in zip(names, sorted(kind.requests[0]), strict=True)
    }
    shapes = {own: {0: rows, 1: length} if own == kind.free else {0: rows} for own in names}
    keywords = names if kind.by_keyword else []
    program = torch.export.export(
        module,
        tuple(example[name] for name in names if name not in keywords),
        {name: example[name] for name in keywords},
        dynamic_shapes=shapes,
    )
    file = BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def _example(rows: Array) -> torch.Tensor:
    """Return two rows; numbers in the place of text, of which there are no tensors."""
    if rows.dtype.hasobject:
        return torch.zeros(2, 2)
    return torch.from_numpy(np.repeat(rows[:1], 2, axis=0))


def _graph(kind: Kind) -> bytes:
    head = '<ir_version: 10, opset_import: ["" : 20]>\nnet '
    model = onnx.parser.parse_model(head + kind.graph)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


_WRITERS: dict[str, tuple[Callable[[Kind], dict[str, str | bytes]], str]] = {
    "python class": (lambda kind: _source(kind.predictor), "format: python\nclass: code:{name}"),
    "nn.Module": (
        lambda kind: _source(_made_by(kind, "nn.Module")),
        "format: python\nclass: code:{name}",
    ),
    "torchscript": (
        lambda kind: {"net.pt": _script(kind.name)},
        "format: torchscript\nfile: {file}",
    ),
    "export": (lambda kind: {"net.pt2": _export(kind.name)}, "format: export\nfile: {file}"),
    "aoti": (lambda kind: {"net.pt2": _export(kind.name)}, "format: export\nfile: {file}"),
    "onnx": (lambda kind: {"net.onnx": _graph(kind)}, "format: onnx\nfile: {file}"),
}


def _kind(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def _parameters(module: torch.nn.Module) -> list[str]:
    return list(inspect.signature(module.forward).parameters)


def _loaded(kind: Kind, format_name: str) -> Callable[..., Any]:
    if format_name == "nn.Module":
        return _module(kind)
    if format_name == "torchscript":
        script: Callable[..., Any] = torch.jit.load(BytesIO(_script(kind.name)))
        return script
    program: Callable[..., Any] = torch.export.load(BytesIO(_export(kind.name))).module()
    return program


def _of_class(model: Any) -> Call:
    def call(inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        prepared = model.preprocess(inputs) if hasattr(model, "preprocess") else inputs
        return _finished(model, _by_name(model.predict(prepared)))

    return call


def _of_module(module: Callable[..., Any], kind: Kind) -> Call:
    own = _module(kind)
    names = _parameters(own)

    def call(inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        prepared = own.preprocess(inputs) if hasattr(own, "preprocess") else inputs
        by_name = {name: torch.from_numpy(array) for name, array in prepared.items()}
        if kind.by_keyword:
            return _finished(own, _by_name(module(**by_name)))
        return _finished(own, _by_name(module(*(by_name[name] for name in names))))

    return call


def _of_graph(graph: bytes) -> Call:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def call(inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        texts = {
            name: np.array([text.decode() for text in array], object)
            if array.dtype.hasobject
            else array
            for name, array in inputs.items()
        }
        return dict(zip(names, session.run(names, texts), strict=True))

    return call


def _finished(model: Any, outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the outputs after `postprocess`, if the model has that hook."""
    if not hasattr(model, "postprocess"):
        return outputs
    finished: Mapping[str, Any] = model.postprocess(
        {name: np.asarray(output) for name, output in outputs.items()}
    )
    return finished


def _by_name(result: Any) -> Mapping[str, Any]:
    if isinstance(result, Mapping):
        return result
    if isinstance(result, tuple):
        return dict(zip(("double", "total"), result, strict=True))
    return {"y": result}
