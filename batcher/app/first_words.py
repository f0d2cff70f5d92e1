"""What a person reads when a single file is served: what was understood, and how to ask.

The line with `curl` works as it stands. Its rows are those of the model's sample, or blank ones of
the sizes that warm-up runs with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from shlex import quote
from typing import Any
from urllib.parse import quote as quote_url

from batcher.codecs.file_names import media_type_of_file
from batcher.config.model_file import ModelDefinition
from batcher.core.spec import TensorSpec, shape_text

MAX_BODY_CHARS = 400
"""Characters of a body that is shown: such a line can still be read, and edited."""

_TEXT = "an example"


def first_words(
    definitions: Sequence[ModelDefinition], address: str, end: str = "Ctrl-C stops the server"
) -> str:
    """Return the screen about models that a server on `address` serves; `end` says how it ends."""
    url, options = _url(address)
    parts = [_of_model(definition, url, options) for definition in definitions]
    if url.startswith("http") and not options:
        parts.append(f"The page: {url}/   its routes: {url}/docs   {end}")
    return "\n\n".join(parts)


def _of_model(definition: ModelDefinition, url: str, options: str) -> str:
    spec = definition.spec
    made = f", {definition.learnt[0]}" if definition.learnt else ""
    lines = [f"model {spec.name}{made}"]
    lines += [f"  takes {_described(tensor)}" for tensor in spec.inputs]
    lines += [f"  gives {_described(tensor)}" for tensor in spec.outputs]
    lines += [f"  {note}" for note in definition.learnt[1:]]
    target = f"{url}/models/{quote_url(spec.name, safe='')}/predict"
    lines += ["", "Ask it:", f"  {curl_line(definition, target, options)}"]
    pictures = [tensor.name for tensor in spec.inputs if tensor.image is not None]
    if pictures and len(spec.inputs) == 1:
        form = quote(f"{pictures[0]}=@picture.png")
        lines += ["or, with a picture:", f"  curl {options}-F {form} {quote(target)}"]
    return "\n".join(lines)


def _described(tensor: TensorSpec) -> str:
    optional = " (optional)" if tensor.is_optional else ""
    return f"{tensor.name} {tensor.datatype.name}{shape_text(tensor.shape)}{optional}"


def curl_line(definition: ModelDefinition, target: str, options: str = "") -> str:
    """Return the command that asks the model behind the URL `target`, and works as it stands."""
    url, tensors = quote(target), definition.spec.required
    post = f"curl {options}{url} -H"
    if definition.sample is not None and _is_body(definition):
        media_type = media_type_of_file(definition.sample)
        accept = "" if media_type == "application/json" else "-H 'Accept: application/json' "
        file = quote(f"@{definition.sample}")
        return f"{post} 'Content-Type: {media_type}' {accept}--data-binary {file}"
    body = json.dumps({"inputs": {each.name: _blank(each) for each in tensors}})
    if len(body) <= MAX_BODY_CHARS:
        return f"{post} 'Content-Type: application/json' -d {quote(body)}"
    (first, *others) = tensors
    if not others and first.datatype.name != "BYTES" and first.free_axes <= 1:
        size = prod(_row_shape(first)) * first.datatype.numpy.itemsize
        return (
            f"head -c {size} /dev/zero | {post} 'Content-Type: application/octet-stream' -H "
            "'Accept: application/json' --data-binary @-"
        )
    return (
        f"python3 -c {quote(_program(tensors))} | {post} 'Content-Type: application/json' "
        "--data-binary @-"
    )


def _is_body(definition: ModelDefinition) -> bool:
    """Return whether the sample can be posted as it is; the first example of a file may not."""
    file = definition.sample
    if not definition.is_single or file is None:
        return file is not None
    if file.suffix == ".npy":
        return len(definition.spec.required) == 1
    try:
        document = json.loads(file.read_text()) if file.suffix == ".json" else None
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and ("inputs" in document) != ("instances" in document)


def _program(tensors: Sequence[TensorSpec]) -> str:
    """Return a program in Python that writes a body too long for a line."""
    members = ", ".join(
        f"{each.name!r}: z({_element(each)!r}, 1, {', '.join(map(str, _row_shape(each)))})"
        for each in tensors
    )
    return (
        "import json; z = lambda v, *s: [z(v, *s[1:]) for _ in range(s[0])] if s else v; "
        f"print(json.dumps({{'inputs': {{{members}}}}}))"
    )


def _url(address: str) -> tuple[str, str]:
    """Return the URL for the first of the addresses, and the options that curl needs for it."""
    first = address.partition(" and ")[0]
    if first.startswith("unix:"):
        return "http://localhost", f"--unix-socket {quote(first.removeprefix('unix:'))} "
    for anywhere in ("//0.0.0.0:", "//[::]:"):
        first = first.replace(anywhere, "//localhost:")
    return first, ""


def _row_shape(tensor: TensorSpec) -> tuple[int, ...]:
    shape = tensor.warmup_shape or tensor.shape
    return tuple(1 if size < 0 else size for size in shape)


def _element(tensor: TensorSpec) -> Any:
    if tensor.datatype.name == "BYTES":
        return _TEXT
    if tensor.datatype.name == "BOOL":
        return False
    return 0.0 if tensor.datatype.name.startswith(("F", "BF")) else 0


def _blank(tensor: TensorSpec) -> Any:
    """Return one row, as nested lists within the list of rows."""
    if prod(_row_shape(tensor)) > MAX_BODY_CHARS:
        return " " * MAX_BODY_CHARS  # too long to be shown, whatever it is
    value = _element(tensor)
    for size in reversed((1, *_row_shape(tensor))):
        value = [value] * size
    return value
