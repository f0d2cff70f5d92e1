"""Between which numbers of instances a model may be, where that follows its load."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from batcher.config.reading import Integer
from batcher.config.values import Seconds, Section

MAX_INSTANCES = 256
"""Instances of one model: each has a thread of this process."""

InstanceCount = Annotated[Integer, Field(ge=1, le=MAX_INSTANCES)]


class AutoscaleSettings(Section):
    """Between which numbers of instances a model may be.

    Attributes:
        min: instances that there always are; with so many the model is ready.
        max: instances that there are at most.
        cool_down_s: seconds for which fewer instances must have been enough until one leaves.
    """

    min: InstanceCount = 1
    max: InstanceCount
    cool_down_s: Seconds = 300.0
