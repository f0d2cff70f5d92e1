"""Optional inputs without a default: a model must run without them, too.

`optional: true` lets requests leave an input out, and then the model gets no such input. Code that
has no default for the input would fail each such request. Rows of warm-up have all inputs, and so
show nothing of that:

    def forward(self, x, mask)             refused when it is loaded: `mask` has no default
    def predict(self, inputs):             refused at warm-up, which runs one batch more, without
        … inputs["mask"] …                     all such inputs

A model that raises `InvalidInput` answers such a request by itself, and is served. So is one that
needs one of several inputs, whichever it is: it fails only without all of them, which is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from traceback import walk_tb

from batcher.core.error_text import message
from batcher.core.spec import ModelSpec
from batcher.errors import InvalidInput, ModelLoadError
from batcher.models.blank_rows import SENTENCES, NothingPrepared, WarmupBatch, blank_rows
from batcher.models.checked import CheckedModel
from batcher.models.protocol import Progress
from batcher.models.sample import Sample


class InputNeeded(ModelLoadError):
    """A model needs an input that is optional; the message names the input."""


def lacking_inputs(spec: ModelSpec) -> list[str]:
    """Return the names of the inputs that the model may not get. Any thread."""
    names = [tensor.name for tensor in spec.inputs if tensor.may_lack]
    # The mask of what is left out is left out, too.
    filled = {tensor.name: tensor.mask_of or tensor.lengths_of for tensor in spec.inputs}
    return [*names, *(name for name, source in filled.items() if source in names)]


def check_default(name: str, parameter: str, needed: Collection[str], method: str) -> None:
    """Check that `method` has a default for the `parameter` that gets the optional input `name`.

    Raises:
        ModelLoadError: the parameter is among those that are `needed`.

    Any thread.
    """
    if parameter in needed:
        raise ModelLoadError(
            f"input {name!r}: expected a default for it in {method}, since it is `optional: true` "
            f"and requests may leave it out; got none. Write `{parameter}=None` there, or a "
            "`default` of the input in model.yaml"
        )


@contextmanager
def told_of_lacking(model: CheckedModel) -> Iterator[None]:
    """Say of a model that fails on its first batch which optional inputs this batch lacks.

    Those are the inputs of free axes, whose sizes nobody knows. An error that has nothing to do
    with them stays as it is. Raises ModelLoadError. Inference thread.
    """
    try:
        yield
    except ModelLoadError as err:
        rows, cause = _rows_of(model), err.__cause__
        names = [name for name in lacking_inputs(model.spec) if name not in rows]
        names = [] if cause is None or model.timings else _missed(cause, names)
        if not names:
            raise
        text = (
            f"{err}; the rows of warm-up lack {_quoted(names)}, as requests may: a model that "
            f"needs it has no `optional: true` for it in model.yaml. {_mend(names[0])}; or name "
            "its sizes, `warmup_shape`"
        )
        raise ModelLoadError(text) from cause


def _missed(error: BaseException, names: list[str]) -> list[str]:
    """Return those of the inputs `names` that `error` may be about. Any thread."""
    if isinstance(error, KeyError):
        return [name for name in names if error.args[:1] == (name,)]
    if not isinstance(error, TypeError | AttributeError):
        return []
    text, has_default = str(error), _parameters(error)
    return [
        name
        for name in names
        if name not in has_default and (repr(name) in text or "NoneType" in text)
    ]


def _parameters(error: BaseException) -> set[str]:
    """Return the parameters of the functions that `error` passed. Any thread.

    A function that was called without an input has a default for it.
    """
    codes = [frame.f_code for frame, _ in walk_tb(error.__traceback__)]
    return {
        name
        for code in codes
        for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    }


def check_lacking(model: CheckedModel, rows: int, rows_each: int, progress: Progress) -> None:
    """Run a batch of `rows` rows without the optional inputs; `rows_each` as in WarmupBatch.

    Tells `progress` of a model that fails only without all of them. Inference thread.

    Raises:
        InputNeeded: the model fails without one input; the message names all such inputs.
    """
    sent = _rows_of(model)
    names = [name for name in lacking_inputs(model.spec) if name in sent]

    def error_without(*names: str) -> BaseException | None:
        rest = {name: array for name, array in sent.items() if name not in names}
        return _error(model, rest, rows, rows_each)

    if not names or (error := error_without(*names)) is None:
        return
    single = {name: found for name in names if (found := error_without(name)) is not None}
    if single:
        raise _needed_error(single) from next(iter(single.values()))
    progress(
        f"note: requests with none of the inputs {_quoted(names)} fail: {_reason(error)}. Raise "
        "InvalidInput there, so that clients are told what to send"
    )


def _needed_error(errors: Mapping[str, BaseException]) -> InputNeeded:
    """Return what says which inputs a model needs: it raised the `errors` without each of them."""
    names = list(errors)
    return InputNeeded(
        f"input{'s' * (len(names) > 1)} {_quoted(names)}: expected a model that runs without an "
        f"input that is `optional: true`, since requests may leave the input out; got "
        f"{_reason(errors[names[0]])}. {_mend(names[0])}"
    )


def _reason(error: BaseException) -> str:
    """Return the class and the words of `error`. Any thread."""
    return f"{type(error).__name__}: {message(error).strip()}".removesuffix(": ")


def _rows_of(model: CheckedModel) -> Sample:
    """Return the rows of warm-up. Inference thread."""
    return blank_rows(model.spec, 1, SENTENCES) if model.sample is None else model.sample


def _error(model: CheckedModel, sent: Sample, rows: int, rows_each: int) -> BaseException | None:
    """Return what a batch of the rows in `sent` raises; None if it runs. Inference thread."""
    try:
        batch = WarmupBatch(model.model, rows, rows_each, sent)
        batch.check(model.model.predict(batch.inputs()))
    except (InvalidInput, NothingPrepared):
        return None
    # Also SystemExit: a model that calls sys.exit() must not end the thread.
    except (Exception, SystemExit) as err:
        return err
    return None


def _mend(name: str) -> str:
    """Return what to write for a model that runs without the input `name`. Any thread."""
    return (
        f"Write `{name}=None` in `forward`, `inputs.get({name!r})` in `predict`, or a `default` of "
        "the input in model.yaml"
    )


def _quoted(names: list[str]) -> str:
    return ", ".join(map(repr, names))
