"""What the archives of PyTorch say: exported programs and TorchScript."""

from __future__ import annotations

from typing import Any

import torch

from batcher.config.model_settings import ModelSettings
from batcher.config.single_file import SingleFile
from batcher.core.spec import DATATYPES
from batcher.errors import ConfigError
from batcher.models.describing.examples import example_by_name, tensor_of
from batcher.models.describing.wanted import Found, Values, listed
from batcher.models.pytorch.archive_check import check_archive, check_operators
from batcher.models.pytorch.export_inputs import input_names
from batcher.models.pytorch.input_order import parameters_of_script

_BY_DTYPE = {
    getattr(torch, row.alias): row.name for row in DATATYPES.values() if hasattr(torch, row.alias)
}


def describe_export(single: SingleFile, settings: ModelSettings) -> Found:
    """Return what an exported program says. Raises ConfigError and ModelLoadError."""
    if settings.trusted:
        check_operators(single.file)
    else:
        check_archive(single.file, ())
    program = torch.export.load(str(single.file))
    found = Found({"format": "export", "file": single.file.name}, ["an exported program"])
    if single.inputs:
        found.values["inputs"] = listed(single.inputs, single.title)
        found.notes.append("inputs: as --input, inputs= or the settings say")
        return found
    shapes = {
        node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"
    }
    found.values["inputs"] = [
        _tensor(name, shapes[place], single.title) for name, place in input_names(program)
    ]
    found.notes.append("inputs: as the program was exported")
    return found


def describe_script(single: SingleFile) -> Found:
    """Return what an archive of TorchScript says. Raises ConfigError."""
    try:
        module = torch.jit.load(str(single.file), map_location="cpu")
    except RuntimeError as err:
        raise ConfigError(f"{single.title}: expected TorchScript; got {err}") from err
    names = parameters_of_script(module).names
    found = Found({"format": "torchscript", "file": single.file.name}, ["TorchScript"])
    if single.inputs:
        found.values["inputs"] = listed(single.inputs, single.title)
        found.notes.append("inputs: as --input, inputs= or the settings say")
    elif single.sample is not None:
        found.example = example_by_name(single.sample, names, single.file.parent)
        found.values["inputs"] = [tensor_of(*each) for each in found.example.items()]
        found.notes.append("inputs: of the shape of the first example")
    else:
        options = " ".join(f'--input "{name}=FP32[4]"' for name in names)
        raise ConfigError(
            f"{single.title}: expected dtypes and shapes of the inputs {', '.join(names)}, which "
            "TorchScript does not keep; got none. Declare them, the shape of one row, -1 where "
            f"any size will do:\n\n    batcher serve {single.file.name} {options}\n\nor name a "
            "file with a first example: --sample example.npy (or .npz, .json)"
        )
    return found


def _tensor(name: str, value: Any, title: str) -> Values:
    """Return what `model.yaml` would say of an input; `value` stands for it in the program."""
    if not isinstance(value, torch.Tensor) or not value.ndim:
        raise ConfigError(
            f"{title}: input {name}: expected a tensor whose first axis counts the rows of a "
            "batch; got a single value. Export the model with tensors of rows"
        )
    if value.dtype not in _BY_DTYPE:
        raise ConfigError(f"{title}: input {name}: expected a known dtype; got {value.dtype}")
    shape = [size if isinstance(size, int) else -1 for size in value.shape[1:]]
    return {"name": name, "dtype": _BY_DTYPE[value.dtype], "shape": shape}
