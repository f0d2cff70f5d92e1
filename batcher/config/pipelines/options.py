"""What `with` of each built-in step may hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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


class CropBoxesOptions(Options):
    """How a picture lies in memory.

    Attributes:
        layout: `chw`, the channel first, or `hwc`.
    """

    layout: Literal["chw", "hwc"] = "chw"
