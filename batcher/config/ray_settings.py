"""Where Ray runs the instances of a model, and what each of them takes of its node."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from batcher.config.reading import Number
from batcher.config.values import Section

_OF_RAY = ("CPU", "GPU", "memory", "object_store_memory")
"""Resources that have settings of their own, or none."""


def _address(value: str) -> str:
    if value != "auto" and not re.fullmatch(r"([A-Za-z0-9_.-]{1,253}|\[[0-9a-f:.]+\]):\d+", value):
        raise ValueError(
            "auto, or address and port of the head of a cluster that this machine is a node of, "
            "such as 10.0.0.1:6379"
        )
    return value


def _amount(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("a whole number, or a part of one, such as 0.5")
    return value


def _resources(value: Any) -> Any:
    if isinstance(value, dict) and (own := [name for name in _OF_RAY if name in value]):
        raise ValueError(f"resources that were made up for nodes, without {', '.join(own)}")
    return value


Amount = Annotated[Number, Field(ge=0, le=1 << 20), AfterValidator(_amount)]


class RaySettings(Section):
    """Where Ray runs the instances of a model with `worker: ray`, and what each of them takes.

    Attributes:
        address: `auto`, for the cluster that this machine is a node of; or address and port of the
            head of that cluster, as `10.0.0.1:6379`.
        num_cpus: cores of its node that Ray sets aside for each instance, and the threads that
            PyTorch has there where `torch_threads` says nothing.
        num_gpus: GPUs of its node for each instance, the only ones that it sees; 0.5 has two
            instances share one.
        resources: from the name of another resource, which a node was started with, to how much of
            it each instance takes; as `{a100: 1}`.
    """

    address: Annotated[str, AfterValidator(_address)] = "auto"
    num_cpus: Amount = 1.0
    num_gpus: Amount = 0.0
    resources: Annotated[dict[str, Amount], BeforeValidator(_resources)] = Field(
        default_factory=dict
    )

    @property
    def threads(self) -> int:
        """The threads inside one operator that an instance has by default."""
        return max(1, int(self.num_cpus))

    def __str__(self) -> str:
        """Return what an instance takes, in words."""
        amounts = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.resources}
        return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items() if amount)
