"""What `with` of each built-in step may hold."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from batcher.config.reading import Integer, Number


class Options(BaseModel):
    """Settings of a built-in step; this one has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TopKOptions(Options):
    """How many values are kept.

    Attributes:
        k: how many.
    """

    k: Annotated[Integer, Field(ge=1)]


class ThresholdOptions(Options):
    """Where the threshold is.

    Attributes:
        at: the least value that counts.
    """

    at: Number


class LabelOptions(Options):
    """The names of the classes.

    Attributes:
        labels: a name for each class.
    """

    labels: Annotated[tuple[str, ...], Field(min_length=1)]


Layout = Literal["chw", "hwc"]
"""How a picture lies in memory: the channel first, or last."""


class CropBoxesOptions(Options):
    """How pictures lie in memory, and what becomes of crops that stand upright.

    Attributes:
        layout: `chw`, the channel first, or `hwc`.
        turn_tall: a crop at least this many times as high as wide is turned a quarter to the left,
            as a line of text that runs down a page; without it no crop is.
    """

    layout: Layout = "chw"
    turn_tall: Annotated[Number, Field(gt=0)] | None = None


class TurnOptions(Options):
    """How far a picture is turned.

    Attributes:
        degrees: clockwise.
        layout: `chw`, the channel first, or `hwc`.
    """

    degrees: Literal[90, 180, 270]
    layout: Layout = "chw"


class ResizeOptions(Options):
    """What becomes of a picture before a model gets it.

    Attributes:
        height: of the result in pixels.
        width: of the result; without it, the picture keeps its proportions.
        min_width: a narrower result is filled up at its right, with zeros.
        max_width: a wider result is squeezed.
        layout: of the picture: `chw`, the channel first, or `hwc`.
        to: layout of the result; that of the picture if it is left out.
        scale: with any of these three the result is FP32: (pixel * scale - mean) / std.
        mean: one value for all channels or one a channel.
        std: one value for all channels or one a channel.
    """

    height: Annotated[Integer, Field(ge=1)]
    width: Annotated[Integer, Field(ge=1)] | None = None
    min_width: Annotated[Integer, Field(ge=1)] | None = None
    max_width: Annotated[Integer, Field(ge=1)] | None = None
    layout: Layout = "chw"
    to: Layout | None = None
    scale: Number = 1 / 255
    mean: tuple[Number, ...] = (0.0,)
    std: tuple[Annotated[Number, Field(gt=0)], ...] = (1.0,)

    @model_validator(mode="after")
    def _check_widths(self) -> Self:
        if self.width is not None and (self.min_width or self.max_width):
            raise ValueError("`width` alone, or `min_width` and `max_width`, not all")
        if (self.min_width or 1) > (self.max_width or self.min_width or 1):
            raise ValueError("a `max_width` of at least `min_width`, not a smaller one")
        return self
