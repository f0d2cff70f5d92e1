"""The sample of a model: rows of inputs that the model can answer, named by its author.

Zeros and empty texts mean nothing to many models: an empty text has no words, and a free axis no
size. So a model may name a sample, in one of three places. Warm-up runs rows of the sample in place
of blank rows, and a deep check of readiness sends the first row.

| where | what |
|---|---|
| `sample: file` in `model.yaml` | a file that could be posted to `/predict` |
| an attribute `sample` of a Python class | a dictionary of names to rows, as JSON's `inputs` |
| the first example of a single file, or of  | a file, an array, or arrays by name              |
| `@batcher.model(sample=…)`                 | (`describing/examples.py`)                       |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from batcher.codecs.content import Content
from batcher.codecs.file_names import media_type_of_file
from batcher.codecs.format_table import decode_body
from batcher.codecs.formats.rows import inputs_from_document
from batcher.codecs.negotiation import request_format
from batcher.config.model_file import ModelDefinition
from batcher.core.left_out import with_defaults
from batcher.core.spec import Array, ModelSpec, check_inputs
from batcher.errors import ClientError, ConfigError, ModelLoadError
from batcher.models.describing.examples import example_by_name

Sample = Mapping[str, Array]
"""The inputs of a sample; the first axis of each array is the row."""


def sample_of_file(file: Path, spec: ModelSpec, is_example: bool = False) -> Sample:
    """Return the rows in `file`, read as the server reads a body of the type that the name tells.

    A first example, if it `is_example`, is read as such. Raises:
        ClientError: the file is not what the model takes; the message says what was expected and
            what the file holds.
        ConfigError: the file is no example.

    Any thread.
    """
    if is_example:
        return sample_of_values(_by_name(file, spec), spec)
    media_type = media_type_of_file(file)
    body = Content(file.read_bytes(), media_type)
    return _checked(decode_body(request_format(media_type, spec), body, spec), spec)


def inputs_of_values(values: Mapping[str, Any], spec: ModelSpec) -> dict[str, Array]:
    """Return the rows in `values`, name to array or lists. Raises ClientError. Any thread."""
    tensors = {tensor.name: tensor for tensor in spec.inputs}
    named: dict[str, Any] = {}
    for name, value in values.items():
        dtype = tensors[name].datatype.numpy if name in tensors else None
        is_array = isinstance(value, np.ndarray) and dtype is not None and value.dtype != dtype
        named[name] = value.tolist() if is_array else value
    return inputs_from_document({"inputs": named}, spec)


def sample_of_values(values: Mapping[str, Any], spec: ModelSpec) -> Sample:
    """Return the rows in `values`, if the model takes them. Raises ClientError. Any thread."""
    return _checked(inputs_of_values(values, spec), spec)


def sample_of(definition: ModelDefinition, values: Any) -> Sample | None:
    """Return the sample of the model's file, or in `values`, an example; None without either.

    Raises:
        ModelLoadError: the sample is not what the model takes.

    Any thread.
    """
    file, spec = definition.sample, definition.spec
    try:
        if file is not None:
            return sample_of_file(file, spec, definition.is_single)
        if values is None:
            return None
        if not isinstance(values, Mapping):
            values = _by_name(values, spec, definition.folder)
        return sample_of_values(values, spec)
    except (ClientError, ConfigError) as err:
        where = file.name if file is not None else "attribute of the class"
        raise ModelLoadError(f"sample ({where}): {err}") from err


def repeated(sample: Sample, rows: int) -> dict[str, Array]:
    """Return so many `rows` of `sample`, the first one again behind the last. Any thread."""
    return {name: array[np.arange(rows) % len(array)] for name, array in sample.items()}


def _by_name(example: Any, spec: ModelSpec, folder: Path = Path()) -> dict[str, Any]:
    return example_by_name(example, [tensor.name for tensor in spec.inputs], folder)


def _checked(inputs: Mapping[str, Array], spec: ModelSpec) -> Sample:
    return with_defaults(spec, inputs, check_inputs(spec, inputs))
