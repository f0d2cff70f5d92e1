"""A graph of onnxruntime, on the CPU or on CUDA, as a `Model`.

A run is one native call, during which onnxruntime lets go of the interpreter lock. What the graph
takes and gives is held against the specification when the model is loaded (`binding.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.onnx_file import GraphTensor, OnnxFile
from batcher.core.spec import Array, has_rows
from batcher.errors import ModelContractError, ModelLoadError
from batcher.models.onnx.binding import Binding, Signature, bind
from batcher.models.onnx.crossing import branch_notes, keep_rows_apart
from batcher.models.onnx.empty_rows import empty_rows
from batcher.models.onnx.session import open_session, quiet_run, read_graph
from batcher.models.protocol import Arrays, FreshMemory, PlainModel

_DTYPES = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
    "tensor(bool)": "BOOL",
    **{f"tensor({sign}int{bits})": f"{sign.upper()}INT{bits}"
       for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""The datatype of each type that onnxruntime names."""


class OnnxModel(PlainModel, FreshMemory):
    """A session of onnxruntime, on the CPU or on CUDA."""

    one_call = True

    def __init__(self, definition: ModelDefinition, settings: ModelSettings) -> None:
        """Remember what to load; nothing is read yet. Any thread."""
        super().__init__(definition, settings)
        self._must_run_on_cuda = settings.devices[0].startswith("cuda")
        self._threads = settings.torch_threads
        self._session: Any = None
        self._options = quiet_run()
        self._binding = Binding()
        self._output_names: list[str] = []

    def load(self, device: str) -> None:
        """Open the session, and bind the tensors of the specification to those of the graph.

        Raises:
            ModelLoadError: the graph takes or gives something else than the specification; or
                onnxruntime has the CPU alone where the settings name CUDA.

        Inference thread.
        """
        providers = _providers(device, self._settings.memory_limit)
        graph = read_graph(self._definition.file)
        self._session = open_session(self._definition.file, graph, self._threads or 0, providers)
        # onnxruntime falls back to the CPU without an error: welcome, but where CUDA was named.
        if self._must_run_on_cuda and "CUDAExecutionProvider" not in self._session.get_providers():
            raise ModelLoadError(
                f"expected onnxruntime to run on {device}; this build of it offers the CPU alone"
            )
        self._binding = self._bound(_signature(self._session, graph))
        self._output_names = [fetch.source.name for fetch in self._binding.fetches]
        self.max_rows = self._binding.max_rows
        branches = branch_notes(self._binding, graph.deciding)
        self.notes = (*self._binding.notes, *_training_notes(graph.training), *branches)

    def _bound(self, signature: Signature) -> Binding:
        """Return how batches enter and leave the graph. Inference thread."""
        binding = bind(self.spec, self._definition.graph, signature)
        keep_rows_apart(binding, signature)
        return binding

    def operators(self, inputs: Arrays) -> int:
        """Return 1: a run is one native call. Inference thread."""
        return 1

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run the session on one batch.

        Raises:
            InvalidInput: an element of BYTES is not UTF-8, or the graph failed on rows without an
                element.
            ModelContractError: a graph of a fixed number of rows gave another number.

        Inference thread.
        """
        binding = self._binding
        rows = len(next(iter(inputs.values())))
        computed = rows if binding.fixed_rows is None else binding.fixed_rows
        if computed > rows:
            inputs = {name: _filled(array, computed) for name, array in inputs.items()}
        outputs = {}
        for fetch, value in zip(binding.fetches, self._run(inputs), strict=True):
            array = fetch.rows(value, computed)
            if binding.fixed_rows is not None and computed > 1:
                _check_rows(fetch.tensor.name, array, computed)
            outputs[fetch.tensor.name] = _own_rows(array, rows, computed)
        return outputs

    def _run(self, inputs: Arrays) -> list[Any]:
        """Return what the graph gives for `inputs`; raises as `predict` does. Inference thread."""
        binding = self._binding
        fed = {
            feed.graph_name: feed.value(inputs[feed.name])
            for feed in binding.feeds
            if feed.name in inputs  # of an optional input that is left out the graph has a value
        }
        try:
            inputs_of_graph = binding.constants | fed
            values: list[Any] = self._session.run(
                self._output_names, inputs_of_graph, self._options
            )
        except Exception as err:
            if refusal := empty_rows(inputs, binding.feeds, self._session.get_inputs()):
                raise refusal from err
            raise
        return values


def _providers(device: str, memory_limit: int | None) -> list[Any]:
    """Return what a session for `device` runs on, the best first. Inference thread."""
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        options = {"device_id": int(device.partition(":")[2] or 0)}
        if memory_limit is not None:
            options["gpu_mem_limit"] = int(memory_limit)
        providers.insert(0, ("CUDAExecutionProvider", options))
    return providers


def _training_notes(operators: list[str]) -> list[str]:
    """Return a note that a graph runs `operators` as in training; none without operators.

    Any thread.
    """
    if not operators:
        return []
    return [
        f"the graph was exported in training mode ({', '.join(operators)}): answers may be drawn "
        "at random, or depend on the other rows of a batch. Call `.eval()` before the export, and "
        "leave out `training=` of torch.onnx.export"
    ]


def _filled(array: Array, rows: int) -> Array:
    """Return `array` with copies of its last row, so that it has `rows` rows. Inference thread."""
    return np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])


def _check_rows(name: str, array: Array, rows: int) -> None:
    """Raise ModelContractError unless the output `name` of a graph of `rows` rows has as many.

    A filled batch of one row would pass with whatever the graph makes of all its rows together.

    Inference thread.
    """
    if not has_rows(array, rows):
        got = len(array) if array.ndim else "a scalar"
        raise ModelContractError(
            f"output {name!r}: the graph takes {rows} rows, and gave {got}. If the first axis of "
            "its inputs counts no rows, list the inputs in model.yaml with `shape` of all axes; if "
            "the output is of no row, leave it out of `outputs`"
        )


def _own_rows(array: Array, rows: int, computed: int) -> Array:
    """Return the first `rows` of the `computed` rows, in memory row by row. Inference thread."""
    if computed > rows and array.ndim and len(array) == computed:
        array = array[:rows]
    return np.ascontiguousarray(array) if array.ndim else array


def _signature(session: Any, graph: OnnxFile) -> Signature:
    """Return what a session takes and gives; `graph` knows the keys of maps. Inference thread."""
    labelled = {tensor.name: tensor for tensor in graph.outputs if tensor.labels}
    # Of a shape that the file does not say onnxruntime tells what it tells of a single number.
    listed = (*graph.inputs, *graph.defaults, *graph.outputs)
    unsaid = {tensor.name for tensor in listed if tensor.shape is None}
    inputs, defaults, outputs = (
        {node.name: _graph_tensor(node, node.name in unsaid) for node in nodes}
        for nodes in (
            session.get_inputs(),
            session.get_overridable_initializers(),
            session.get_outputs(),
        )
    )
    return Signature(inputs, defaults, outputs | labelled)


def _graph_tensor(node: Any, is_unsaid: bool) -> GraphTensor:
    """Return an input or output of a session. Inference thread.

    `is_unsaid` tells whether the file says nothing of the shape.
    """
    dtype = _DTYPES.get(node.type, "")
    # A size of -1 or an empty name is not known.
    shape = tuple(
        None if dim == "" or (isinstance(dim, int) and dim < 0) else dim for dim in node.shape
    )
    is_known = dtype and (shape or not is_unsaid)
    return GraphTensor(node.name, dtype, shape if is_known else None)


MODEL = OnnxModel
