"""Inputs that a request leaves out: their defaults, and masks and lengths of padded inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from batcher.core.spec import Array, ModelSpec, TensorSpec


def with_defaults(spec: ModelSpec, inputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
    """Return `inputs` of so many `rows` and, of optional inputs that are left out, the defaults."""
    missing: dict[str, Array] = {}
    for tensor in spec.inputs:
        if tensor.name in inputs:
            continue
        if tensor.default is not None:
            missing[tensor.name] = np.repeat(tensor.default[np.newaxis], rows, axis=0)
        elif source := tensor.mask_of or tensor.lengths_of:
            missing |= _filled(spec, tensor, source, inputs, rows)
    return {**inputs, **missing} if missing else inputs


def _filled(
    spec: ModelSpec, tensor: TensorSpec, source: str, inputs: Mapping[str, Array], rows: int
) -> dict[str, Array]:
    """Return the mask or the lengths of the input `source`; nothing where that is left out, too."""
    found = inputs.get(source)
    if found is None:
        return {}
    free = next(each.shape for each in spec.inputs if each.name == source)
    lengths = [have for want, have in zip(free, found.shape[1:], strict=True) if want < 0]
    ends = iter(lengths)
    shape = [next(ends) if size < 0 else size for size in tensor.shape]
    value = 1 if tensor.mask_of else lengths[0] if len(lengths) == 1 else lengths
    return {tensor.name: np.full((rows, *shape), value, tensor.datatype.numpy)}
