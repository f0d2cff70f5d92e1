"""Methods of a model must be plain functions: neither `async def` nor generators.

A batch runs on a thread without an event loop, so nobody would await a coroutine or step through a
generator. Awaiting each call in a loop of its own would be wrong in silence: a session or a lock
that the model made in one loop fails in the next. So such a method is refused when the model is
loaded, by its name. What a plain function returns is looked at as well, since a decorator can hide
an `async def`.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from inspect import (
    isasyncgen,
    isasyncgenfunction,
    isawaitable,
    iscoroutine,
    iscoroutinefunction,
    isgenerator,
    isgeneratorfunction,
)
from typing import Any

from batcher.errors import ModelContractError, ModelLoadError

_CALLED = ("load", "preprocess", "predict", "forward", "postprocess")
"""The methods of a model that the server, or PyTorch for the server, calls."""

_ASYNC = "nobody awaits it: write a plain `def`, in which `asyncio.run` may run a coroutine"
_GENERATOR = "nobody steps through it: collect the results and `return` them at once"


def check_methods(model: object) -> None:
    """Check that the methods of `model` that are called are plain functions.

    Raises:
        ModelLoadError: one of them is `async def` or a generator; the message names the method.

    Any thread.
    """
    for name in _CALLED:
        # A property may need what `load` sets; what it gives is looked at when it is called.
        if isinstance(getattr(type(model), name, None), property | cached_property):
            continue
        method = getattr(model, name, None)
        # an object with `__call__` in the place of a method
        call = getattr(method, "__call__", None)  # noqa: B004  # its kind is asked for, not whether
        found = _function_kind(method) or _function_kind(call)
        if found:
            raise ModelLoadError(
                f"{type(model).__name__}.{name}: expected a plain function; {found}"
            )


def check_load(load: Any, model: object) -> None:
    """Raise ModelLoadError unless `load` of `model` takes the device alone. Any thread."""
    try:
        signature = inspect.signature(load)
    except (TypeError, ValueError):  # a callable of native code
        return
    try:
        signature.bind("cpu")
    except TypeError as err:
        raise ModelLoadError(
            f"{type(model).__name__}.load: expected one argument, the device, as in `def load(self,"
            f" device)`; got load{signature}"
        ) from err


def note_of_both(model: object, served: str) -> tuple[str, ...]:
    """Return the note that `model` has `predict` and `forward`, of which one is `served`.

    Empty if it has one of them. Any thread.
    """
    other = "forward" if served == "predict" else "predict"
    if not callable(getattr(type(model), other, None)):
        return ()
    name = type(model).__name__
    return (f"{name} has predict and forward: {served} is served, the server calls no {other}",)


def check_returned(result: Any, what: str) -> None:
    """Check that `result`, which `what` of a model returned, is a value.

    Raises:
        ModelContractError: the result is a coroutine or a generator.

    Any thread.
    """
    kind = type(result).__name__
    if isgenerator(result) or iscoroutine(result):
        result.close()  # or Python warns that it was never awaited
        mend = _GENERATOR if isgenerator(result) else _ASYNC
        raise ModelContractError(f"{what}: expected a value; got a {kind}, and {mend}")
    if isasyncgen(result) or isawaitable(result):
        raise ModelContractError(f"{what}: expected a value; got {kind}, and {_ASYNC}")


def _function_kind(function: Any) -> str:
    """Return what `function` is if it is no plain function, and what to do; empty if it is."""
    if iscoroutinefunction(function):
        return f"got a coroutine function (`async def`), and {_ASYNC}"
    if isasyncgenfunction(function):
        return f"got an async generator, and {_ASYNC}"
    if isgeneratorfunction(function):
        return f"got a generator function (`yield`), and {_GENERATOR}"
    return ""
