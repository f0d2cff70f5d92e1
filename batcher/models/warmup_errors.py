"""Whatever a batch of warm-up raises becomes an error that names the batch and the mend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from batcher.core.error_text import message
from batcher.errors import InvalidInput, ModelContractError, ModelLoadError, OutOfMemory
from batcher.models.blank_rows import NothingPrepared
from batcher.models.device_errors import device_error

_WANTS_GRADIENTS = re.compile("require(s_)? ?grad|[Ii]nference tensor")
"""PyTorch's errors where gradients are computed in inference mode."""

_WITHOUT_VALUES = re.compile(r"\bmeta\b|FakeTensor")
"""PyTorch's errors where tensors without values meet others."""

_OF_THE_CODE = (AttributeError, NameError, ImportError, TypeError, SystemExit)
"""Errors of code that is wrong whatever the rows hold."""

_OF_NO_SIZE = (AttributeError, NameError, ImportError, KeyError, InvalidInput)
"""Errors of code that is wrong for a batch of any size."""

_WANTS_ONE = re.compile("arrays can be converted|converted to (a )?(Python )?[Ss]calar")
"""Errors of NumPy and PyTorch where a single number was meant; others of the class TypeError are of
no size.
"""

_OTHER_ROWS = re.compile(r"\d+ rows in, .+ out in output")
"""The breach of the contract that a smaller batch may mend: other rows out than in."""


@contextmanager
def explained(rows: int, fitted: int = 0, length: str = "", native: bool = False) -> Iterator[None]:
    """Raise whatever a batch of `rows` rows raises as an error that names the batch.

    `fitted` are the rows of the largest batch that has run, 0 without one. `length` is empty for
    the length of warm-up's own rows. `native`: as for `_advice`.

    Raises:
        OutOfMemory: the batch does not fit into the memory.
        ModelLoadError: anything else was raised.

    Inference thread.
    """
    try:
        yield
    except NothingPrepared:
        raise
    # Also SystemExit: a model that calls sys.exit() must not end the thread.
    except (Exception, SystemExit) as err:
        reason = f"{type(err).__name__}: {message(err).strip()}".removesuffix(": ")
        error = device_error(err)
        if isinstance(error, OutOfMemory):
            raise error from None
        what = f"batch size {rows}" + (f" and {length}" if length else "")
        reason += _advice(err, fitted, native)
        raise ModelLoadError(f"warm-up with {what} failed: {reason}") from error


def _advice(error: BaseException, fitted: int, native: bool) -> str:
    """Return what an author can do about `error`, if that is known.

    `native` tells that code of a library ran zeros and empty texts: no line of the author's shows
    what is wrong with them.

    Any thread.
    """
    if advice := _advice_of_torch(error):
        return advice
    if fitted and _may_be_of_size(error):
        return (
            f"; a batch of {fitted} ran: if the model takes no more rows at once, set "
            f"max_batch_size to {fitted}"
        )
    if native and not isinstance(error, (*_OF_THE_CODE, ModelContractError)):
        return (
            "; the rows of warm-up hold zeros and empty texts: if the model takes no such rows, "
            "name a file of rows that it takes as `sample` in model.yaml"
        )
    return ""


def _advice_of_torch(error: BaseException) -> str:
    """Return what helps against an error of PyTorch's; mostly nothing. Any thread."""
    if isinstance(error, RuntimeError) and _WANTS_GRADIENTS.search(str(error)):
        return "; if the model computes gradients, write `gradients: true` in model.yaml"
    if isinstance(error, RuntimeError | AssertionError) and _WITHOUT_VALUES.search(str(error)):
        return (
            "; tensors on the device meta, and those of FakeTensorMode, have no values: load the "
            "weights of the module, and make it outside of such a mode"
        )
    return ""


def _may_be_of_size(error: BaseException) -> bool:
    """Return whether a smaller batch may be the mend of `error`. Any thread."""
    if isinstance(error, TypeError):
        return bool(_WANTS_ONE.search(str(error)))
    if isinstance(error, ModelContractError):
        return bool(_OTHER_ROWS.search(str(error)))
    return not isinstance(error, _OF_NO_SIZE)
