"""Whether the outputs of a padded model can be cut to the lengths of rows: one batch shows it.

Rows of warm-up are all alike, often squares, and have no padding. So three faults stay hidden until
clients send rows of other lengths:

    fault                                        shows where
    `unpad`, but two axes are swapped            the lengths of a batch differ from each other
    `unpad`, but an axis has a fixed size        a batch has other lengths than the one before
    `ragged`, but rows come with their padding   a row is shorter than its batch

One batch has all three: its lengths are none of warm-up's, and its second row is shorter.

    lengths of warm-up    lengths of the batch    lengths of its second row
    16                    8                       7
    32 x 32               16 x 8                  15 x 7

Rows of `ragged` outputs may have any size, but not one that depends on the batch. So the same short
row runs in a batch of warm-up's lengths as well:

    a row of 7 in a batch of    16    8
    rows of the output          16    8     it holds the padding: refused
    rows of the output          10    10    all rows have this size
    rows of the output          4     5     drawn anew for each batch, or cut wrongly: a note

A batch one of whose rows the model refuses shows nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from batcher.core.padding import Lengths, Padding, RaggedGroup
from batcher.core.ragged import is_ragged
from batcher.core.spec import shape_text
from batcher.errors import ModelContractError
from batcher.models.blank_rows import WarmupBatch
from batcher.models.fitting import fit_outputs, fit_raw_outputs
from batcher.models.protocol import Model, PartialOutputs
from batcher.models.row_errors import RowErrors
from batcher.models.sample import Sample


def check_uneven_lengths(model: Model, largest: int, sample: Sample | None) -> str:
    """Check a batch of two rows of unequal lengths, or of one if the `largest` has no more.

    Return a note on rows that may hold padding; mostly empty.

    Raises:
        ModelContractError: an output cannot be cut, or holds padding.
        BaseException: whatever the model raises. It may be unable to take rows of these lengths.

    Inference thread.
    """
    spec = model.spec
    if not (spec.is_padded and any(each.unpads or each.is_ragged for each in spec.outputs)):
        return ""
    padding = Padding(spec)
    batch = WarmupBatch(model, min(largest, 2), sample=sample)
    if not isinstance(padding.group_of(inputs := batch.inputs()), RaggedGroup):
        return ""
    own = padding.padded_lengths(padding.lengths_of(inputs))
    others = padding.other_lengths(own)
    return _check_batches(model, batch, padding, own, others) if others else ""


class _Ran(NamedTuple):
    """A batch that ran.

    Attributes:
        lengths: its lengths.
        shapes: by the name of each `ragged` output whose rows have one shape, that shape.
    """

    lengths: Lengths
    shapes: dict[str, tuple[int, ...]]


def _check_batches(
    model: Model, batch: WarmupBatch, padding: Padding, own: Lengths, others: Lengths
) -> str:
    """Check the rows of `batch` at the lengths `others`, and a short one at its `own`, too.

    Returns and raises as `check_uneven_lengths`. Inference thread.
    """
    short = tuple([max(min(pair) - 1, 1) for pair in zip(own, others, strict=True)])
    ran = _Ran(others, _row_shapes(model, batch, padding, others, short))
    # A row alone is not padded. What `postprocess` gets may hold padding, which the hook takes off.
    if batch.rows == 1 or not ran.shapes or model.postprocess is not None:
        return ""
    return _check_padding(ran, _Ran(own, _row_shapes(model, batch, padding, own, short)))


def _row_shapes(
    model: Model, batch: WarmupBatch, padding: Padding, lengths: Lengths, short: Lengths
) -> dict[str, tuple[int, ...]]:
    """Run rows of `lengths` and of `short` ones; return the shapes that `_Ran` has.

    Raises as `check_uneven_lengths`. Inference thread.
    """
    spec, outputs = model.spec, model.predict(batch.uneven_inputs(padding, lengths, short))
    if isinstance(outputs, PartialOutputs) and _have_refused(outputs.failed):
        return {}
    if model.postprocess is not None:
        padding.check_outputs(fit_raw_outputs(spec.name, outputs, batch.rows), lengths)
        return {}
    fitted, errors = fit_outputs(spec, outputs, batch.rows)
    if _have_refused(errors):
        return {}
    padding.check_outputs(fitted, lengths)
    ragged = [each.name for each in spec.outputs if each.is_ragged]
    return {name: fitted[name].shape[1:] for name in ragged if not is_ragged(fitted[name])}


def _have_refused(errors: RowErrors) -> bool:
    """Return whether the model refused a row, in whose place then stands a row of any size.

    Any thread.
    """
    return not all(isinstance(error, ModelContractError) for error in errors.values())


def _check_padding(one: _Ran, other: _Ran) -> str:
    """Check that the rows of both batches, one of which is the same, have sizes of their own.

    Return a note on sizes that differ, but are not those of the batches. Raises ModelContractError.
    Any thread.
    """
    note = ""
    for name, shape in one.shapes.items():
        again = other.shapes.get(name, shape)
        if shape == again:
            continue
        got = (
            f"{shape_text(shape)} and {shape_text(again)} for the same row in batches of lengths "
            f"{_text(one.lengths)} and {_text(other.lengths)}"
        )
        if _holds_padding(one, other, name):
            raise _padding_error(name, got, is_whole=set(one.lengths) <= set(shape))
        note = f"rows of output {name!r} may hold padding: got {got}"
    return note


def _padding_error(name: str, got: str, *, is_whole: bool) -> ModelContractError:
    """Return what says that rows of the output `name` hold the padding, all of it if `is_whole`."""
    more = ", or write `unpad: true` in place of `ragged: true`" if is_whole else ""
    return ModelContractError(
        f"output {name!r} says `ragged: true`; expected a size of each row's own, got {got}: rows "
        f"hold the padding. Return a list with one array for each row, cut to its own size{more}"
    )


def _holds_padding(one: _Ran, other: _Ran, name: str) -> bool:
    """Return whether all sizes of a row that differ are lengths of both batches. Any thread."""
    sizes = zip(one.shapes[name], other.shapes[name], strict=True)
    lengths = set(zip(one.lengths, other.lengths, strict=True))
    return lengths.issuperset([pair for pair in sizes if pair[0] != pair[1]])


def _text(lengths: Lengths) -> str:
    return " x ".join(map(str, lengths))
