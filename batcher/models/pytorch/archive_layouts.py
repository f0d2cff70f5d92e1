"""The layouts of inputs and outputs in the archive of an exported program, which its reader builds.

A layout says in which containers tensors stand: for each container the name of its type, a context
(the keys of a mapping), and the layouts of what is in it. The reader looks the type up by its name,
and calls what was registered for the type. So a layout is harmless in two cases:

    type of the container                      what makes it harmless
    tuple, list, dict, OrderedDict             the type makes nothing but a container
    a type that a library has registered       a module that `imports` in `model.yaml` names has the
        with PyTorch, such as an output of      type, so the operator vouches for its code; and the
        `transformers`                          type has no reader of its own for the context

And the context must be numbers and keys: an object in it names a class, which is imported. Keys of
inputs are plain words, since PyTorch writes some of them into code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from torch.utils import _pytree as pytree

from batcher.models.pytorch.archive_texts import is_key, is_word

_PLAIN_TYPES = (
    None,
    "builtins.tuple",
    "builtins.list",
    "builtins.dict",
    "collections.OrderedDict",
)
"""Types of containers that any program may have; None is a leaf of the layout."""

_KEYS = frozenset({"type", "context", "children_spec"})


def layout_harm(text: str, imports: tuple[str, ...], of_inputs: bool = True) -> str:
    """Return what is harmful in a layout; empty if nothing is.

    Args:
        text: the layout.
        imports: modules, imported by now, whose types may be containers.
        of_inputs: whether the layout is of inputs, not of outputs.

    Any thread.
    """
    layout = json.loads(text)
    if not isinstance(layout, list) or len(layout) != 2:
        return f"the layout {text!r:.60}"
    return _harm(layout[1], imports, is_word if of_inputs else is_key)


def _harm(layout: Any, imports: tuple[str, ...], is_name: Callable[[str], bool]) -> str:
    """Return what is harmful in one container, or in those within it.

    Keys must pass `is_name`. Any thread.
    """
    if not isinstance(layout, dict) or not set(layout) <= _KEYS:
        return f"the layout {layout!r:.60}"
    kind, context = layout.get("type"), layout.get("context")
    if kind not in _PLAIN_TYPES and not _is_imported(kind, imports):
        return f"the container {kind!r:.120} (not of a module that `imports` in model.yaml names)"
    if not _is_plain(json.loads(context) if isinstance(context, str) else context, is_name):
        return f"the container {context!r:.60}"
    inside = (_harm(inner, imports, is_name) for inner in layout.get("children_spec", []))
    return next(filter(None, inside), "")


def _is_imported(kind: Any, imports: tuple[str, ...]) -> bool:
    """Return whether a module in `imports` has the type `kind`, which reads no context itself.

    Any thread.
    """
    found = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(kind) if isinstance(kind, str) else None
    if found is None or not any(f"{found.__module__}.".startswith(f"{name}.") for name in imports):
        return False
    return pytree.SUPPORTED_SERIALIZED_TYPES[found].from_dumpable_context is None


def _is_plain(context: Any, is_name: Callable[[str], bool]) -> bool:
    """Return whether a context has nothing but numbers and keys that pass `is_name`. Any thread."""
    return all(
        name is None or isinstance(name, int | float) or (isinstance(name, str) and is_name(name))
        for name in (context if isinstance(context, list) else [context])
    )
