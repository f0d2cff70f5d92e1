"""Which tensor of the specification is which tensor of a graph.

The graph knows names, datatypes and shapes, so whatever `model.yaml` says otherwise is told when
the model is loaded, with both sides. What follows from the two is worked out once:

    input or output of the graph        a batch of n rows
    rows on its first axis              is passed on as it is
    rows on another axis                has its axes moved, on the way in and back
    a fixed number of rows, k           has at most k rows, and is filled up to k with its last row
    no axis for rows                    has one row, whose axis is taken off and put back

Some graphs name fixed sizes for outputs that in truth differ from batch to batch, since their
exporter did not follow the sizes through. So sizes of outputs decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batcher.config.model_file import GraphBinding
from batcher.config.onnx_axes import axes_of_rows, fits
from batcher.config.onnx_definition import described
from batcher.config.onnx_file import Dim, GraphTensor
from batcher.core.spec import DATATYPES, Array, ModelSpec, TensorSpec
from batcher.errors import ModelContractError, ModelLoadError
from batcher.models.onnx.values import array_of, constant_of, scores_of, strings_of


@dataclass(frozen=True, slots=True)
class Signature:
    """What a graph takes and gives, each by its name.

    Attributes:
        inputs: inputs without a value in the graph.
        defaults: inputs with a value in the graph.
        outputs: outputs.
    """

    inputs: Mapping[str, GraphTensor]
    defaults: Mapping[str, GraphTensor]
    outputs: Mapping[str, GraphTensor]


@dataclass(frozen=True, slots=True)
class Feed:
    """One input of the specification on its way into the graph.

    Attributes:
        name: name in the specification.
        graph_name: name in the graph.
        axis: axis of the graph's input that counts rows; None for an input of one row alone.
        rows: rows that the graph takes, None for any number.
        is_text: whether the input is of strings.
    """

    name: str
    graph_name: str
    axis: int | None
    rows: int | None
    is_text: bool

    def value(self, array: Array) -> Array:
        """Return the rows in `array` as the graph takes them. Inference thread."""
        if self.is_text:
            array = strings_of(array, self.name)
        if self.axis == 0:
            return array
        return array[0, ...] if self.axis is None else np.moveaxis(array, 0, self.axis)


@dataclass(slots=True)
class Fetch:
    """One output of the graph on its way out.

    Attributes:
        tensor: the specification of the output.
        source: the output of the graph.
        axes: axes that may count rows; one, unless the shapes leave that open. Batches of which the
            shape fits one axis alone decide.
        is_first: whether the first axis counts rows wherever that fits, since it does in all
            inputs.
        one_row: whether the graph computes one row, and may give outputs without an axis for rows.
    """

    tensor: TensorSpec
    source: GraphTensor
    axes: list[int]
    is_first: bool
    one_row: bool

    def rows(self, value: Any, rows: int) -> Array:
        """Return what the graph gave for `rows` rows, rows first.

        Raises:
            ModelContractError: several axes may count the rows.

        Inference thread.
        """
        array = scores_of(value, self.source) if self.source.labels else array_of(value)
        if self.one_row and array.ndim == len(self.tensor.shape):
            return array[np.newaxis]
        axis = self.axes[0] if len(self.axes) == 1 else self._axis_of(array, rows)
        return array if axis == 0 or axis >= array.ndim else np.moveaxis(array, axis, 0)

    def _axis_of(self, array: Array, rows: int) -> int:
        """Return the axis that counts the rows of `array`. Inference thread."""
        shape = array.shape
        fitting = [
            axis
            for axis in self.axes
            if axis < array.ndim
            and shape[axis] == rows
            and fits((*shape[:axis], *shape[axis + 1 :]), self.tensor.shape, is_output=True)
        ]
        if self.is_first and len(fitting) > 1 and 0 in fitting:
            return 0
        if len(fitting) > 1:
            raise ModelContractError(
                f"output {self.tensor.name!r}: its rows may lie along axis "
                f"{' or '.join(map(str, fitting))} of {list(shape)}; write `batch_axis` for it in "
                "model.yaml"
            )
        if fitting:
            self.axes = fitting
        return self.axes[0]


@dataclass(slots=True)
class Binding:
    """How batches enter and leave one graph.

    Attributes:
        feeds: inputs of the specification.
        fetches: outputs of the specification.
        constants: inputs of the graph that are the same in every batch.
        fixed_rows: rows that the graph computes, whatever a batch has; None for any number.
        max_rows: most rows of a batch; None for any number.
        notes: what the operator should know.
    """

    feeds: list[Feed] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    fixed_rows: int | None = None
    max_rows: int | None = None
    notes: list[str] = field(default_factory=list)


def bind(spec: ModelSpec, places: GraphBinding, signature: Signature) -> Binding:
    """Return how batches of the model `spec` enter and leave a graph.

    Args:
        spec: the specification.
        places: what `model.yaml` says of the tensors' places in the graph.
        signature: what the graph takes and gives.

    Raises:
        ModelLoadError: names, datatypes or shapes differ; the message names both.

    Inference thread.
    """
    binder = _Binder(signature)
    binder.bind_constants(places.constants)
    binder.bind_inputs(_placed(spec.inputs, places.inputs))
    binder.bind_outputs(_placed(spec.outputs, places.outputs))
    return binder.binding


Placed = tuple[TensorSpec, str, int | None]
"""A tensor of the specification, its name in the graph, and the axis that `model.yaml` names."""


def _placed(
    tensors: Sequence[TensorSpec], places: Sequence[tuple[str, int | None]]
) -> list[Placed]:
    """Return each tensor with its place. Any thread."""
    # A definition that no file was read for says nothing of places.
    named = places or [(tensor.name, None) for tensor in tensors]
    return [(tensor, *place) for tensor, place in zip(tensors, named, strict=True)]


class _Binder:
    """Works out a Binding. Inference thread.

    Attributes:
        binding: the result so far.
    """

    def __init__(self, signature: Signature) -> None:
        self.binding = Binding()
        self._signature = signature
        self._takes = {**signature.inputs, **signature.defaults}
        self._batch_names: frozenset[str] = frozenset()

    def bind_constants(self, constants: Mapping[str, Any]) -> None:
        for name, value in constants.items():
            if name not in self._takes:
                raise ModelLoadError(
                    f"constants: expected names of inputs of the graph, {_listed(self._takes)}; "
                    f"got {name!r}"
                )
            self.binding.constants[name] = constant_of(value, self._takes[name])

    def bind_inputs(self, placed: Sequence[Placed]) -> None:
        for tensor, name, axis in placed:
            source = self._takes.get(name)
            if source is None:
                raise _unknown("inputs", tensor.name, name, self._takes)
            if name in self.binding.constants or any(
                feed.graph_name == name for feed in self.binding.feeds
            ):
                raise ModelLoadError(
                    f"inputs: expected each input of the graph once, among inputs and constants; "
                    f"got {name!r} twice"
                )
            _check_dtype("input", tensor, source)
            if tensor.may_lack and name in self._signature.inputs:
                raise ModelLoadError(
                    f"input {tensor.name!r}: expected a `default` for an optional input that has "
                    "no value in the graph; got none"
                )
            self.binding.feeds.append(self._feed(tensor, source, axis))
        self._check_all_fed()
        self._fix_rows()

    def bind_outputs(self, placed: Sequence[Placed]) -> None:
        for tensor, name, axis in placed:
            source = self._signature.outputs.get(name)
            if source is None:
                raise _unknown("outputs", tensor.name, name, self._signature.outputs)
            self._check_output(tensor, source)
            axes = [axis] if axis is not None else self._output_axes(tensor, source)
            one_row = self.binding.fixed_rows == 1 or self.binding.max_rows == 1
            is_first = not any(feed.axis for feed in self.binding.feeds)
            self.binding.fetches.append(Fetch(tensor, source, axes, is_first, one_row))

    def _feed(self, tensor: TensorSpec, source: GraphTensor, named: int | None) -> Feed:
        axis = named or 0 if source.shape is None else self._input_axis(tensor, source, named)
        size = source.shape[axis] if axis is not None and source.shape else None
        if isinstance(size, str):
            self._batch_names |= {size}
        fixed = size if isinstance(size, int) else None
        return Feed(tensor.name, source.name, axis, fixed, tensor.datatype.name == "BYTES")

    def _input_axis(self, tensor: TensorSpec, source: GraphTensor, named: int | None) -> int | None:
        """Return the axis that counts rows, None where there is none. Raises ModelLoadError."""
        shape = source.shape or ()
        if named is not None:
            rest = (*shape[:named], *shape[named + 1 :])
            axes = [named] if named < len(shape) and fits(rest, tensor.shape) else []
        else:
            axes = axes_of_rows(shape, tensor.shape, self._batch_names)
        if axes:
            return axes[0]
        if named is None and fits(shape, tensor.shape):
            self.binding.notes.append(
                f"input {tensor.name!r} of the graph is {described(source)} and has no axis for "
                "the rows of a batch beside the shape in model.yaml, so each row runs alone. Where "
                "the graph's first axis is that of the batch, leave that axis out of `shape`; "
                f"where the value is always the same, write `constants: {{{source.name}: …}}`"
            )
            return None
        raise _wrong_shape(tensor, source, named)

    def _check_all_fed(self) -> None:
        """Check that every input of the graph has a value."""
        fed = {feed.graph_name for feed in self.binding.feeds} | self.binding.constants.keys()
        for name, source in self._signature.inputs.items():
            if name not in fed:
                raise ModelLoadError(
                    f"inputs: expected all inputs of the graph, {_listed(self._signature.inputs)}; "
                    f"{name!r} is missing. Add it to `inputs`, or, if its value is always the "
                    f"same, write `constants: {{{name}: …}}`, which takes {described(source)}"
                )

    def _fix_rows(self) -> None:
        """Find out how many rows the graph takes."""
        fixed = {feed.name: feed.rows for feed in self.binding.feeds if feed.rows is not None}
        if len(set(fixed.values())) > 1 or 0 in fixed.values():
            sizes = ", ".join(f"{rows} of {name!r}" for name, rows in fixed.items())
            raise ModelLoadError(
                "inputs: expected the same number of rows, at least 1, in every input of the "
                f"graph; got {sizes}. Export the graph with a free axis for the rows"
            )
        rows = next(iter(fixed.values()), None)
        self.binding.fixed_rows = self.binding.max_rows = rows
        if rows is not None and rows > 1:
            self.binding.notes.append(
                f"the graph always computes {rows} rows; smaller batches are filled up with copies "
                "of their last row"
            )
        if any(feed.axis is None for feed in self.binding.feeds):
            self.binding.max_rows = 1

    def _check_output(self, tensor: TensorSpec, source: GraphTensor) -> None:
        if source.labels:
            if tensor.datatype.name not in ("FP32", "FP64") or tensor.shape != (
                len(source.labels),
            ):
                raise ModelLoadError(
                    f"output {tensor.name!r}: expected FP32 and shape [{len(source.labels)}], the "
                    "scores of the classes in the graph's sequence of maps (ZipMap); got "
                    f"{tensor.describe()}"
                )
            self.binding.notes.append(
                f"output {tensor.name!r} of the graph is a sequence of maps (ZipMap), which are "
                "made an array, row by row; exported with `zipmap=False` it is an array already"
            )
        else:
            _check_dtype("output", tensor, source)

    def _output_axes(self, tensor: TensorSpec, source: GraphTensor) -> list[int]:
        """Return the axes that may count the rows of an output."""
        is_moved = any(feed.axis for feed in self.binding.feeds)
        if source.shape is None:
            return list(range(len(tensor.shape) + 1)) if is_moved else [0]
        axes = axes_of_rows(source.shape, tensor.shape, self._batch_names, is_output=True)
        squeezed = self.binding.max_rows == 1 and len(source.shape) == len(tensor.shape)
        if not axes and not squeezed:
            self.binding.notes.append(
                f"output {tensor.name!r} of the graph is {described(source)}, with the batch; "
                f"model.yaml says {tensor.describe()}"
            )
        if not is_moved:
            return sorted(axes) or [0]
        named = [axis for axis in axes if source.shape[axis] in self._batch_names]
        return named[:1] or axes or list(range(len(tensor.shape) + 1))


def _check_dtype(kind: str, tensor: TensorSpec, source: GraphTensor) -> None:
    """Check the datatype of a tensor. Raises ModelLoadError. Any thread."""
    if not source.dtype or source.dtype == "BF16":
        what = "BF16, which numpy does not have" if source.dtype else "no tensor of numbers or text"
        raise ModelLoadError(
            f"{kind} {tensor.name!r}: expected a tensor; {source.name!r} of the graph is {what}. "
            + ("Leave it out of `outputs`, or export" if kind == "output" else "Export")
            + " the model with a plain tensor in its place"
        )
    declared = tensor.datatype.name
    if declared == source.dtype:
        return
    # What a graph gives is converted where that loses no kind of value; what it takes is not.
    from_dtype, to_dtype = DATATYPES[source.dtype].numpy, tensor.datatype.numpy
    is_text = from_dtype.hasobject or to_dtype.hasobject
    if kind == "output" and not is_text and np.can_cast(from_dtype, to_dtype, "same_kind"):
        return
    raise ModelLoadError(
        f"{kind} {tensor.name!r}: expected dtype {source.dtype}, as {source.name!r} "
        f"{described(source)} has in the graph; got {declared}"
    )


def _wrong_shape(tensor: TensorSpec, source: GraphTensor, axis: int | None) -> ModelLoadError:
    """Return the error for an input whose shape is not that of the graph. Any thread."""
    shape = source.shape or ()
    taken = 0 if axis is None else axis
    if not shape or taken >= len(shape):
        advice = f"write its value as `constants: {{{source.name}: …}}`"
    else:
        advice = f"write `shape: {_row_text(shape, taken)}`"
    given = "" if axis is None else f" with batch_axis {axis}"
    return ModelLoadError(
        f"input {tensor.name!r}: expected the shape of one row of {source.name!r}, which is "
        f"{described(source)} in the graph, with the batch; got {list(tensor.shape)}{given}: "
        f"{advice}"
    )


def _row_text(shape: tuple[Dim, ...], axis: int) -> str:
    """Return `shape` without `axis` as it stands in `model.yaml`. Any thread."""
    row = (*shape[:axis], *shape[axis + 1 :])
    return f"[{', '.join(str(dim) if isinstance(dim, int) else '-1' for dim in row)}]"


def _unknown(
    kind: str, name: str, graph_name: str, known: Mapping[str, GraphTensor]
) -> ModelLoadError:
    """Return the error for a tensor that the graph does not have. Any thread."""
    rename = (
        "" if name != graph_name else f". For another name of your own add `graph_name` to {name!r}"
    )
    return ModelLoadError(
        f"{kind}: expected names of the graph, {_listed(known)}; got {graph_name!r}{rename}"
    )


def _listed(tensors: Mapping[str, GraphTensor]) -> str:
    """Return names, datatypes and shapes of `tensors` as text. Any thread."""
    return ", ".join(_each(tensors.values())) or "none"


def _each(tensors: Any) -> Iterator[str]:
    for tensor in tensors:
        yield f"{tensor.name!r} {described(tensor)}"
