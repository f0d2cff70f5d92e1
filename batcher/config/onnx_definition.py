"""What `model.yaml` need not say of an ONNX model, since the graph says it.

    in `model.yaml`              taken from the graph
    no `inputs`                  all inputs that have no value in the graph and no constant
    no `outputs`                 all outputs that are tensors, or the maps of a ZipMap
    a tensor without `dtype`     its datatype
    a tensor without `shape`     its shape without the axis of the batch

The values are filled in before they are validated, so that all the rest of the server finds a
`model.yaml` that says everything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batcher.config.model_files import check_files
from batcher.config.onnx_axes import first_choice
from batcher.config.onnx_file import Dim, GraphTensor, OnnxFile, read_onnx
from batcher.config.reading import Source
from batcher.errors import ConfigError

_KINDS = ("inputs", "outputs")


def fill_in(source: Source, folder: Path) -> None:
    """Put what the graph says into the values of `source`, a `model.yaml` that stands in `folder`.

    Nothing is read for a file of another format, or one that says everything itself.

    Raises:
        ConfigError: the file is no ONNX, or an input of the graph has no axis for a batch.
    """
    values = source.values
    file = values.get("file")
    if values.get("format") != "onnx" or not isinstance(file, str) or _is_complete(values):
        return
    path = folder / file
    check_files(folder, {"file": file}, source)
    try:
        graph = read_onnx(path)
    except (OSError, ValueError, RecursionError) as err:
        raise ConfigError(
            f"{source.origin(('file',))}: file: expected an ONNX file that says what model.yaml "
            f"leaves out of inputs and outputs; got {file!r}: {err}"
        ) from err
    _Filling(source, graph).fill()


def _is_complete(values: dict[str, Any]) -> bool:
    """Return whether the tensors in `values` have names, dtypes and shapes, or are malformed."""
    for kind in _KINDS:
        entries = values.get(kind, [{}])
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and not {"dtype", "shape"} <= entry.keys():
                return False
    return True


class _Filling:
    """Fills in one `model.yaml` from the `graph` of its file."""

    def __init__(self, source: Source, graph: OnnxFile) -> None:
        self._source = source
        self._values = source.values
        self._inputs = {tensor.name: tensor for tensor in (*graph.inputs, *graph.defaults)}
        self._outputs = {tensor.name: tensor for tensor in graph.outputs}
        constants = self._values.get("constants")
        given = set(constants) if isinstance(constants, dict) else set()
        self._needed = [tensor for tensor in graph.inputs if tensor.name not in given]
        self._batch_names = frozenset(
            dim
            for tensor in self._needed
            if tensor.shape
            for dim in (tensor.shape[first_choice(tensor.shape)],)
            if isinstance(dim, str)
        )

        firsts = [tensor.shape[0] for tensor in self._needed if tensor.shape]
        self._is_free = any(not isinstance(size, int) for size in firsts)

    def fill(self) -> None:
        if "inputs" not in self._values:
            self._check_batches()
            self._values["inputs"] = self._listed_inputs()
        if "outputs" not in self._values:
            self._values["outputs"] = [
                {"name": tensor.name}
                for tensor in self._outputs.values()
                if tensor.dtype and tensor.shape != ()
            ]
            if not self._values["outputs"]:
                raise ConfigError(
                    f"{self._source.origin(())}: outputs: expected outputs with an axis for the "
                    f"rows of a batch; the graph has {_listed(self._outputs)}"
                )
        for kind, tensors in (("inputs", self._inputs), ("outputs", self._outputs)):
            entries = self._values[kind]
            for place, entry in enumerate(entries if isinstance(entries, list) else ()):
                if isinstance(entry, dict):
                    self._check_name((kind, place), entry, tensors)
                    self._fill_entry(entry, tensors)

    def _listed_inputs(self) -> list[dict[str, str]]:
        """Return the inputs of the graph that requests bring. Raises ConfigError without any."""
        inputs = [{"name": tensor.name} for tensor in self._needed if tensor.dtype]
        if not inputs:
            raise ConfigError(
                f"{self._source.origin(())}: inputs: expected tensors that requests can bring; "
                f"the graph takes {_listed({each.name: each for each in self._needed})}"
            )
        return inputs

    def _check_name(
        self, key: tuple[str, int], entry: dict[str, Any], tensors: dict[str, GraphTensor]
    ) -> None:
        """Check that the graph has a tensor that is left to the graph. Raises ConfigError."""
        name = entry.get("graph_name", entry.get("name"))
        if name is None or str(name) in tensors or {"dtype", "shape"} <= entry.keys():
            return  # what is left is checked with the graph, at the load
        raise ConfigError(
            f"{self._source.origin(key)}: {key[0]}: expected names of the graph, "
            f"{_listed(tensors)}; got {name!r}. For another name of your own write `graph_name` "
            "beside `name`"
        )

    def _check_batches(self) -> None:
        """Check that each input which every request must bring has an axis for the batch."""
        for tensor in self._needed:
            first = tensor.shape[0] if tensor.shape else None
            if tensor.shape == () or (
                self._is_free and isinstance(first, int) and self._is_lone(tensor)
            ):
                raise ConfigError(
                    f"{self._source.origin(())}: inputs: expected inputs with an axis for the rows "
                    f"of a batch; the graph's {tensor.name!r} is {described(tensor)}. If its value "
                    f"is always the same, write `constants: {{{tensor.name}: …}}`; if not, list "
                    "the inputs with their shapes"
                )

    def _is_lone(self, tensor: GraphTensor) -> bool:
        """Return whether no axis of `tensor` may count the rows of a batch."""
        return all(isinstance(dim, int) for dim in tensor.shape or ())

    def _fill_entry(self, entry: dict[str, Any], tensors: dict[str, GraphTensor]) -> None:
        tensor = tensors.get(str(entry.get("graph_name", entry.get("name"))))
        if tensor is None or not tensor.dtype:
            return  # the load will say so
        entry.setdefault("dtype", tensor.dtype)
        if tensor.shape is not None and "shape" not in entry:
            entry["shape"] = self._row_shape(tensor.shape, entry.get("batch_axis"))

    def _batch_axis(self, shape: tuple[Dim, ...]) -> int:
        """Return the axis of the batch."""
        axis = first_choice(shape, self._batch_names)
        free = [place for place, dim in enumerate(shape) if not isinstance(dim, int)]
        # Where other inputs take any number of rows, an axis of a fixed size counts none.
        return free[0] if self._is_free and free and axis not in free else axis

    def _row_shape(self, shape: tuple[Dim, ...], axis: object) -> list[int]:
        """Return `shape` without the axis of the batch; sizes that are not fixed are -1."""
        if not isinstance(axis, int) or not 0 <= axis < len(shape):
            axis = self._batch_axis(shape)
        return [
            dim if isinstance(dim, int) else -1 for place, dim in enumerate(shape) if place != axis
        ]


def _listed(tensors: dict[str, GraphTensor]) -> str:
    """Return names, datatypes and shapes of `tensors` as text."""
    return ", ".join(f"{each.name!r} {described(each)}" for each in tensors.values()) or "none"


def described(tensor: GraphTensor) -> str:
    """Return datatype and shape of a tensor of a graph as text, such as `FP32[batch,3,224,224]`."""
    if tensor.shape is None:
        text = f"{tensor.dtype} of a shape that the graph does not say"
        return text if tensor.dtype else "no tensor"
    sizes = ",".join("?" if dim is None else str(dim) for dim in tensor.shape)
    return f"{tensor.dtype or 'no tensor'}[{sizes}]"
