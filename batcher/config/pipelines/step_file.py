"""What `steps` of a `model.yaml` may hold, one section for each step."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from batcher.config.pipelines.expression import parse_condition
from batcher.config.tensor_file import FileSection, TensorFile
from batcher.core.names import name_fault
from batcher.core.spec import TensorSpec

StepName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Reference = Annotated[str, Field(min_length=1, max_length=512)]

KINDS = ("model", "use", "class")
"""The keys that say what a step does; each step has one of them."""


class StepOutputFile(TensorFile):
    """An output of a step with `class`.

    Attributes:
        ragged: whether rows may differ in the sizes of their free axes.
    """

    ragged: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> StepOutputFile:
        if self.ragged and -1 not in self.shape:
            raise ValueError(f"a shape with an axis of -1 for `ragged: true`, not {self.shape}")
        return self

    def spec(self) -> TensorSpec:
        """Return the specification of the output."""
        return TensorSpec(self.name, self.dtype, self.shape, is_ragged=self.ragged)


class StepFile(FileSection):
    """One step of a pipeline.

    Attributes:
        name: what the step is called in `step.output`.
        model: name of the model that answers the step's rows.
        version: of that model, by number or label; without it the newest that is ready.
        use: the built-in step that does the work, such as `softmax`.
        options: settings of the built-in step.
        entry: `module:Class`, an object or function that is called with a request's rows on the CPU
            pool; the module is looked for in this folder first.
        inputs: from each name of an input of the step to the value that goes there: an input of the
            pipeline, or `step.output`.
        outputs: with `class`: what the object returns.
        when: which rows the step gets, as a condition; without it all.
        otherwise: for rows that the step does not get, from the name of an output to its value: an
            input of the pipeline, `step.output`, or with a number or list that value itself.
    """

    name: StepName
    model: Annotated[str | None, Field(min_length=1)] = None
    version: Annotated[str | None, Field(min_length=1, max_length=255)] = None
    use: str | None = None
    options: Annotated[dict[str, Any], Field(alias="with")] = Field(default_factory=dict)
    entry: Annotated[str | None, Field(alias="class", pattern=r"^[\w.-]+:\w+$")] = None
    inputs: Annotated[dict[str, Reference], Field(min_length=1)]
    outputs: tuple[StepOutputFile, ...] = ()
    when: str | None = None
    otherwise: Annotated[dict[str, Any], Field(alias="else")] = Field(default_factory=dict)

    @field_validator("when")
    @classmethod
    def _is_condition(cls, text: str | None) -> str | None:
        if text is not None:
            parse_condition(text)
        return text

    @field_validator("model", "version")
    @classmethod
    def _fits_into_path(cls, name: str | None) -> str | None:
        if name is not None and (fault := name_fault(name)):
            raise ValueError(f"a name that fits into a path: {fault}")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> StepFile:
        if [self.model, self.use, self.entry].count(None) != len(KINDS) - 1:
            raise ValueError(f"one of {', '.join(KINDS)} in each step")
        if self.version is not None and self.model is None:
            raise ValueError("`version` beside `model` alone")
        if self.options and self.use is None:
            raise ValueError("`with` beside `use` alone")
        if bool(self.outputs) != (self.entry is not None):
            raise ValueError("`outputs` of a step with `class`, and of no other")
        if len({tensor.name for tensor in self.outputs}) != len(self.outputs):
            raise ValueError("names that differ among outputs")
        if self.otherwise and self.when is None:
            raise ValueError("`when` beside `else`")
        return self
