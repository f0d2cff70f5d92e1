"""What `model.yaml` says of an input, and of an output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from batcher.config.default_values import default_row
from batcher.config.image_file import ImageFile, image_spec
from batcher.config.reading import Integer
from batcher.config.tensor_file import PaddedFile, TensorFile
from batcher.core.spec import FLOATS


class Reshapes(NamedTuple):
    """Shapes of a row in the model itself, by the name of the input and of the output.

    Tensors that have the same shape in the model and for clients are left out.
    """

    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]


NO_RESHAPES = Reshapes({}, {})
"""Every tensor has the shape that clients see."""


def reshapes_of(inputs: Iterable[TensorFile], outputs: Iterable[TensorFile]) -> Reshapes:
    """Return the shapes that the model has otherwise than its clients."""
    return Reshapes(
        *(
            {
                each.name: each.reshape
                for each in tensors
                if each.reshape not in (None, each.shape) and each.reshape is not None
            }
            for tensors in (inputs, outputs)
        )
    )


class InputFile(PaddedFile):
    """An input tensor.

    Attributes:
        image: how a picture becomes a row; None if pictures are not accepted.
        warmup_shape: shape of a row during warm-up, needed where `shape` has free axes.
        missing: `nan` if a `null` in JSON and an empty cell in CSV stand for NaN; without it they
            are refused. For floats, and for texts of a table, of which an empty one is missing.
        optional: whether a request may leave the input out.
        default: what an optional input is in a request without that input, for each row: one value,
            or nested lists of the shape of a row. Without a default the model does not get the
            input. An input with a default is optional.
    """

    image: ImageFile | None = None
    warmup_shape: tuple[Annotated[Integer, Field(ge=0)], ...] | None = None
    missing: Literal["nan"] | None = None
    optional: bool = False
    default: Any = None

    @field_validator("missing", mode="before")
    @classmethod
    def _nan_as_text(cls, value: object) -> object:
        # YAML reads `.nan` as a number, and `nan` as text.
        return "nan" if isinstance(value, float) and value != value else value

    @model_validator(mode="after")
    def _consistent(self) -> InputFile:
        if self.image is not None:
            image_spec(self.image, self)
        if self.warmup_shape is not None and (
            len(self.warmup_shape) != len(self.shape)
            or any(
                want not in (-1, have)
                for want, have in zip(self.shape, self.warmup_shape, strict=True)
            )
        ):
            raise ValueError(f"warmup_shape to fit shape {list(self.shape)}")
        if self.missing is not None and self.dtype.name not in (*FLOATS, "BYTES"):
            raise ValueError(f"dtype {', '.join(FLOATS)} or BYTES for `missing: nan`")
        if self.default is not None:
            default_row(self.default, self.dtype, self.shape)
        return self

    @property
    def is_optional(self) -> bool:
        """Whether a request may leave the input out."""
        return self.optional or self.default is not None


class OutputFile(TensorFile):
    """An output tensor.

    Attributes:
        labels: names of the classes along the last axis.
        scores: `probability` if the values are probabilities, `logit` if they are logits, which a
            softmax turns into probabilities. Without it an answer has `probability` beside the
            label if its values are 0 to 1 with a sum of 1 in each row, and else `score`.
        ragged: whether rows may differ in the sizes of their free axes (-1), as the boxes found in
            pictures do.
        unpad: whether rows are cut to the lengths of the padded inputs of their request; the shape
            has as many axes of -1 as those then. Beside a padded input an output with an axis of -1
            says `unpad` or `ragged`.
        origin: format `pipeline`: the value that the output is, an input or `step.output`.
    """

    labels: tuple[str, ...] | None = None
    scores: Literal["probability", "logit"] | None = None
    ragged: bool = False
    unpad: bool = False
    origin: Annotated[str | None, Field(alias="from", min_length=1, max_length=512)] = None

    @model_validator(mode="after")
    def _consistent(self) -> OutputFile:
        if self.ragged and -1 not in self.shape:
            raise ValueError(f"a shape with an axis of -1 for `ragged: true`, not {self.shape}")
        if self.unpad and (self.ragged or -1 not in self.shape):
            raise ValueError("a shape with an axis of -1, and no `ragged`, for `unpad: true`")
        if self.labels is not None and (not self.shape or self.shape[-1] != len(self.labels)):
            raise ValueError(f"as many labels as the last axis of shape {list(self.shape)}")
        return self


def check_lengths_said(outputs: Sequence[OutputFile]) -> None:
    """Check that each of `outputs` of a padded model says whose lengths its free axes have.

    Otherwise a request might be answered with the padding of its neighbours.

    Raises:
        ValueError: one of them does not say; the message says what to write.
    """
    for tensor in outputs:
        if -1 in tensor.shape and not (tensor.unpad or tensor.ragged):
            raise ValueError(
                f"`unpad: true` for output {tensor.name!r} beside an input with `pad`, if -1 in "
                f"{list(tensor.shape)} stands for the padded length, `ragged: true` if the sizes "
                "of its rows are the model's own, or the size itself if all rows have the same"
            )
