"""What `model.yaml` may hold: what a model is, not how the model is run.

The file stands in the folder of a version (`models/digits/1/model.yaml`) beside the model's other
files. Its paths are relative to that folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from batcher.config import onnx_definition
from batcher.config.default_values import default_row
from batcher.config.fixed_tensors import fill_in_fixed
from batcher.config.image_file import image_spec
from batcher.config.model_files import check_files, find_file, refuse_pointers
from batcher.config.model_tensors import (
    NO_RESHAPES,
    InputFile,
    OutputFile,
    Reshapes,
    check_lengths_said,
    reshapes_of,
)
from batcher.config.pipelines.plan import Plan, plan_of
from batcher.config.pipelines.step_file import StepFile
from batcher.config.places import places_outside_model_file
from batcher.config.pmml.fields import fill_in_pmml
from batcher.config.reading import Integer, Source, read_yaml, validate
from batcher.config.saved_model.definition import fill_in_saved_model, implied, is_saved_model
from batcher.config.tensor_file import (
    FileSection,
    PaddedFile,
    PreparedFile,
    check_axes,
    fillers,
)
from batcher.config.triton.model_config import config_of, read_config
from batcher.config.unserved_formats import refuse_unserved
from batcher.core.spec import (
    Labels,
    ModelSpec,
    TensorSpec,
)

Format = Literal[
    "python",
    "torchscript",
    "export",
    "onnx",
    "sklearn",
    "xgboost",
    "lightgbm",
    "torchserve",
    "pmml",
    "keras",
    "savedmodel",
    "pipeline",
]
GRAPHS = ("onnx", "torchscript", "savedmodel", "keras")
"""The formats whose files say what they compute, and may be given a view of other shapes."""

TABLES = ("sklearn", "xgboost", "lightgbm", "pmml")
"""The formats whose inputs may be the columns of a table, in which a text may be missing."""


class ModelFile(FileSection):
    """All of `model.yaml`.

    Attributes:
        format: format of the model, which says how it is loaded.
        file: the model's file, for formats other than `python`; may be left out where one file
            alone has the format's suffix. Of a SavedModel it is the folder with `saved_model.pb`.
        entry: format `python`: `module:Class`; the module is looked for in this folder first.
        weights: format `python`: a file of weights for a `torch.nn.Module`.
        inputs: tensors that the model takes, in the order of its positional arguments.
        outputs: tensors that the model gives, in the order of its results.
        sample: a request that the model answers, as a file that could be posted to `/predict`;
            `batcher check --model` runs it.
        signature: format `savedmodel`: the signature that is called, where it is neither
            `serving_default` nor the only one.
        gradients: whether PyTorch keeps what it needs to compute gradients while a batch runs, for
            models that return gradients.
        imports: modules that are imported before the model is read, such as libraries that
            register the operators of the model's file.
        constants: format `onnx`: inputs of the graph that have the same value in every batch, and
            that clients do not send: name in the graph to value, a number or nested lists.
        prepared: of the tensors that `preprocess` makes for `predict`, those that are padded.
        batch_sizes: numbers of rows that batches run with, for models that are compiled for these;
            a batch of another number is padded with copies of its last row, or goes with fewer
            rows. Without them each batch runs with its own rows.
        steps: format `pipeline`: what makes the outputs of the inputs, a section for each step.
    """

    format: Format
    file: str | None = None
    entry: Annotated[str | None, Field(alias="class", pattern=r"^[\w.-]+:\w+$")] = None
    weights: str | None = None
    inputs: Annotated[tuple[InputFile, ...], Field(min_length=1)]
    outputs: Annotated[tuple[OutputFile, ...], Field(min_length=1)]
    sample: Annotated[str | None, Field(min_length=1)] = None
    signature: Annotated[str | None, Field(min_length=1)] = None
    gradients: bool = False
    imports: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")], ...] = ()
    constants: dict[str, Any] = Field(default_factory=dict)
    prepared: tuple[PreparedFile, ...] = ()
    batch_sizes: tuple[Annotated[Integer, Field(ge=1)], ...] = ()
    steps: tuple[StepFile, ...] = ()

    @field_validator("batch_sizes")
    @classmethod
    def _ascending(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if list(sizes) != sorted(set(sizes)):
            raise ValueError("batch_sizes in ascending order")
        return sizes

    @model_validator(mode="after")
    def _what_the_format_needs(self) -> ModelFile:
        if self.format == "python" and self.entry is None:
            raise ValueError("`class: module:Class` for format python")
        if self.gradients and self.format not in ("python", "torchscript", "export"):
            raise ValueError(f"no `gradients: true` for format {self.format}, which has none")
        texts = (tensor.missing for tensor in self.inputs if tensor.dtype.name == "BYTES")
        if any(texts) and self.format not in TABLES:
            raise ValueError(f"`missing: nan` of a text with format {' or '.join(TABLES)} alone")
        for tensors in (self.inputs, self.outputs):
            if len({tensor.name for tensor in tensors}) != len(tensors):
                raise ValueError("names that differ among inputs and among outputs")
        masks, lengths = fillers(self.inputs, "mask"), fillers(self.inputs, "lengths")
        cut = [tensor for tensor in self.outputs if tensor.unpad]
        if cut and not self._padded:
            raise ValueError("an input with `pad` for `unpad: true` of an output")
        check_axes([*self._padded, *cut])
        if self._padded:
            check_lengths_said(self.outputs)
        if all(tensor.is_optional or tensor.name in (masks | lengths) for tensor in self.inputs):
            raise ValueError(_none_counted(self.inputs))
        if self.format != "onnx" and (self.constants or self._names_graph):
            raise ValueError("`graph_name`, `batch_axis` and `constants` with format onnx alone")
        if self.signature is not None and self.format != "savedmodel":
            raise ValueError("`signature` with format savedmodel alone")
        return self

    @model_validator(mode="after")
    def _steps_are_of_a_pipeline(self) -> ModelFile:
        froms = {tensor.origin is not None for tensor in self.outputs}
        if {bool(self.steps), *froms} != {self.format == "pipeline"}:
            raise ValueError("`steps`, and `from` of each output, with format pipeline alone")
        return self

    @model_validator(mode="after")
    def _reshapes_are_views(self) -> ModelFile:
        reshaped = [each for each in (*self.inputs, *self.outputs) if each.reshape is not None]
        if reshaped and self.format not in GRAPHS:
            raise ValueError(f"`reshape` with format {' or '.join(GRAPHS)} alone")
        if any(each in (*self._padded, *self._cut) for each in reshaped):
            raise ValueError("no `reshape` beside `pad`, `ragged` and `unpad`")
        return self

    @property
    def named_files(self) -> dict[str, str | None]:
        """The files that must stand beside `model.yaml`, by their keys."""
        # A SavedModel is a folder, whose file was read before.
        file = None if self.format == "savedmodel" else self.file
        return {"file": file, "weights": self.weights, "sample": self.sample}

    @property
    def _padded(self) -> list[PaddedFile]:
        return [tensor for tensor in (*self.inputs, *self.prepared) if tensor.pad is not None]

    @property
    def _cut(self) -> list[OutputFile]:
        return [tensor for tensor in self.outputs if tensor.ragged or tensor.unpad]

    @property
    def _names_graph(self) -> bool:
        return any(
            tensor.graph_name is not None or tensor.batch_axis is not None
            for tensor in (*self.inputs, *self.outputs)
        )


LISTINGS = {
    "inputs: as declared": "`@batcher.model` declares",
    "inputs: as --input, inputs= or the settings say": "--input, or `inputs`, lists",
    "inputs: from annotations": "the annotations are of",
    "inputs: of the shape of the first example": "the first example has",
}
"""Where inputs of a single file are known from, as notes say it, to the begin of a list of them."""


@dataclass(frozen=True, slots=True)
class GraphBinding:
    """How the tensors of a specification stand in an ONNX graph, as far as `model.yaml` says.

    Attributes:
        inputs: for each input, in the order of the specification, its name in the graph and the
            axis of the batch; the axis is None where `model.yaml` does not say.
        outputs: the same for each output.
        constants: values of inputs that clients do not send, by the name in the graph.
    """

    inputs: tuple[tuple[str, int | None], ...] = ()
    outputs: tuple[tuple[str, int | None], ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ModelDefinition:
    """A version of a model as it stands on disk.

    Whoever runs the model holds this object: the modules of the model live as long.

    Attributes:
        spec: the model's name, version and tensors.
        format: format of the model, which says how it is loaded.
        folder: folder of the version.
        file: the model's file, or the folder of a SavedModel; the folder for `python` without a
            file.
        entry: `module:Class` for `python`, the signature for `savedmodel`, else empty.
        weights: file of weights for `python`, or None.
        sample: file of a request that the model answers, or None.
        gradients: whether gradients can be computed while a batch runs.
        imports: modules that are imported before the model is read.
        graph: how the tensors stand in the graph of an ONNX model.
        reshapes: shapes that the model itself has where clients see another one.
        batch_sizes: numbers of rows that batches run with, ascending; empty for all.
        learnt: where all this is known from, in words, for a model that is one file; empty for one
            with a `model.yaml`.
        notes: what the log says of how the definition was read, each a sentence.
        plan: the steps of a pipeline; None for a model.
    """

    spec: ModelSpec
    format: Format
    folder: Path
    file: Path
    entry: str = ""
    weights: Path | None = None
    sample: Path | None = None
    gradients: bool = False
    imports: tuple[str, ...] = ()
    graph: GraphBinding = GraphBinding()
    reshapes: Reshapes = NO_RESHAPES
    batch_sizes: tuple[int, ...] = ()
    learnt: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    plan: Plan | None = None

    @property
    def is_single(self) -> bool:
        """Whether the model is one file, and its folder is not the model's own."""
        return bool(self.learnt)

    @property
    def listing(self) -> str:
        """Where the names of the inputs come from, as the begin of a list of these names."""
        if not self.is_single:
            return "model.yaml lists"
        return next((LISTINGS[note] for note in self.learnt if note in LISTINGS), "the file names")


def is_defined(folder: Path) -> bool:
    """Return whether there is something that `load_model_definition` can read for `folder`."""
    is_told = (folder / "model.yaml").is_file() or is_saved_model(folder)
    return is_told or config_of(folder) is not None


def load_model_definition(name: str, version: str, folder: Path) -> ModelDefinition:
    """Read `folder/model.yaml`; without one, Triton's `config.pbtxt`, or a SavedModel in `folder`.

    Raises:
        ConfigError: the file is missing or wrong; the message names place, setting, what was
            expected and what came.
    """
    folder = folder.absolute()  # a model may change the working directory before it is read again
    if (config := config_of(folder)) is not None:
        read = read_config(config, name, folder)
        return replace(definition_of(read.source, name, version, folder), notes=read.notes)
    is_implied = is_saved_model(folder) and not (folder / "model.yaml").is_file()
    source = implied(folder) if is_implied else read_yaml(folder / "model.yaml")
    find_file(folder, source)
    return definition_of(source, name, version, folder)


def definition_of(
    source: Source, name: str, version: str, folder: Path, learnt: tuple[str, ...] = ()
) -> ModelDefinition:
    """Return what `source` says, the content of a `model.yaml` in `folder`.

    `learnt` says where that is known from, for a single file. Raises as `load_model_definition`.
    """
    _fill_in(source, folder)
    model = validate(ModelFile, source, places_outside_model_file(ModelFile))
    check_files(folder, model.named_files, source)
    where = _model_spec(name, version, model), model.format, folder
    return ModelDefinition(
        *where,
        file=folder / model.file if model.file else folder,
        entry=model.entry or model.signature or "",
        weights=folder / model.weights if model.weights else None,
        sample=folder / model.sample if model.sample else None,
        gradients=model.gradients,
        imports=model.imports,
        graph=_graph_binding(model),
        reshapes=reshapes_of(model.inputs, model.outputs),
        batch_sizes=model.batch_sizes,
        learnt=learnt,
        plan=_plan(model, source) if model.steps else None,
    )


def _plan(model: ModelFile, source: Source) -> Plan:
    names = [tensor.name for tensor in model.inputs]
    outputs = {tensor.name: tensor.origin or "" for tensor in model.outputs}
    return plan_of(model.steps, names, outputs, source)


def _fill_in(source: Source, folder: Path) -> None:
    """Put into `source` what `model.yaml` leaves to the model's file. Raises ConfigError."""
    refuse_unserved(source)
    refuse_pointers(folder, source)
    fill_in_fixed(source)
    fill_in_pmml(source, folder)
    fill_in_saved_model(source, folder)
    onnx_definition.fill_in(source, folder)


def _model_spec(name: str, version: str, model: ModelFile) -> ModelSpec:
    masks, lengths = fillers(model.inputs, "mask"), fillers(model.inputs, "lengths")
    inputs = tuple(
        _input_spec(tensor, masks.get(tensor.name, ""), lengths.get(tensor.name, ""))
        for tensor in model.inputs
    )
    outputs = tuple(_output_spec(tensor) for tensor in model.outputs)
    prepared = tuple(tensor.spec() for tensor in model.prepared)
    return ModelSpec(name, version, inputs, outputs, platform=model.format, prepared=prepared)


def _graph_binding(model: ModelFile) -> GraphBinding:
    inputs, outputs = (
        tuple((tensor.graph_name or tensor.name, tensor.batch_axis) for tensor in tensors)
        for tensors in (model.inputs, model.outputs)
    )
    return GraphBinding(inputs, outputs, model.constants)


def _input_spec(tensor: InputFile, mask_of: str, lengths_of: str) -> TensorSpec:
    image = image_spec(tensor.image, tensor) if tensor.image else None
    is_given = tensor.default is not None
    return TensorSpec(
        tensor.name,
        tensor.dtype,
        tensor.shape,
        image=image,
        warmup_shape=tensor.warmup_shape,
        missing_is_nan=tensor.missing is not None,
        is_optional=tensor.is_optional or bool(mask_of or lengths_of),
        default=default_row(tensor.default, tensor.dtype, tensor.shape) if is_given else None,
        # Behind the end of a row its mask is padding, too.
        pad=False if mask_of and tensor.pad is None else tensor.pad_value,
        pad_to_multiple_of=tensor.pad_to_multiple_of,
        pad_sizes=tensor.pad_sizes,
        warmup_lengths=tensor.warmup_lengths,
        mask_of=mask_of,
        lengths_of=lengths_of,
    )


def _output_spec(tensor: OutputFile) -> TensorSpec:
    said = tensor.scores
    labels = Labels(tensor.labels, said == "logit", said is not None) if tensor.labels else None
    return TensorSpec(
        tensor.name,
        tensor.dtype,
        tensor.shape,
        labels=labels,
        is_ragged=tensor.ragged,
        unpads=tensor.unpad,
    )


def _none_counted(inputs: tuple[InputFile, ...]) -> str:
    """Return what was expected where requests may leave out all `inputs`."""
    names = ", ".join(tensor.name for tensor in inputs if tensor.is_optional)
    return (
        "an input without `optional` and `default`, whose rows are counted, beside "
        f"{names}, which requests may leave out"
    )
