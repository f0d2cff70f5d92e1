"""Tells once that the first model has imported its libraries, and that no model is made yet.

At that moment every object is one of libraries or of the server. `app/process_settings.py` has the
garbage collector leave these objects alone, so that a collection when a model goes looks at models
alone. A program that embeds a server decides about its own collector: nothing is told to it unless
it calls `after_first_imports`.
"""

from __future__ import annotations

from collections.abc import Callable

_waiting: list[Callable[[], object]] = []


def after_first_imports(function: Callable[[], object]) -> None:
    """Have `function` called once, by the thread that imports. Main thread, before models load."""
    _waiting.append(function)


def imported() -> None:
    """Tell that the libraries of a model are imported. Inference thread."""
    while _waiting:
        _waiting.pop()()
