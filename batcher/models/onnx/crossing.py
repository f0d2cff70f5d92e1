"""Where the rows of a batch meet in a graph: in outputs, told by names of axes, and in branches.

A graph that holds each picture against each text, as CLIP does, takes `image[images,…]` and
`text[texts,…]` and gives `logits[images,texts]`. Both axes are as long as the batch. So the
answer of one request would hold numbers for the texts of others. Such a graph gets one row at a
time.

Some exporters call every free axis alike, `x[N,N]` or `x[None,None]`. Such a name says nothing of
batches; warm-up shows by runs whether rows meet (`batch_axes.py`).

A branch (`If`) that values of rows decide is taken for all rows of a batch. It may be one that
changes no answer, so the operator is told of it.
"""

from __future__ import annotations

from batcher.config.onnx_definition import described
from batcher.config.onnx_file import Dim
from batcher.core.error_text import brief_names
from batcher.models.onnx.binding import Binding, Signature

_PLACEHOLDERS: frozenset[Dim] = frozenset(("None", "?"))
"""Names that exporters write for any free axis."""


def keep_rows_apart(binding: Binding, signature: Signature) -> None:
    """Limit `binding`, of a graph of this `signature`, to one row if rows meet in an output.

    Inference thread.
    """
    rows = _names_of_rows(binding, signature)
    for fetch in binding.fetches:
        if sum(dim in rows for dim in fetch.source.shape or ()) > 1:
            binding.max_rows = 1
            binding.notes.append(
                f"output {fetch.tensor.name!r} of the graph is {described(fetch.source)}: a second "
                "axis is as long as the batch, where rows would meet, so each row runs alone"
            )


def _names_of_rows(binding: Binding, signature: Signature) -> set[Dim]:
    """Return the names that axes of rows alone have among the inputs. Inference thread."""
    inputs = {**signature.inputs, **signature.defaults}
    rows: set[Dim] = set()
    others = set(_PLACEHOLDERS)
    for feed in binding.feeds:
        for axis, dim in enumerate(inputs[feed.graph_name].shape or ()):
            (rows if axis == feed.axis else others).add(dim)
    return {dim for dim in rows - others if isinstance(dim, str)}


def branch_notes(binding: Binding, deciding: list[str]) -> list[str]:
    """Return a note that rows share a branch that the inputs `deciding` decide; none without any.

    Any thread.
    """
    names = [feed.name for feed in binding.feeds if feed.graph_name in deciding]
    if not names or binding.max_rows == 1:
        return []
    return [
        f"the graph takes a branch by the values of {brief_names(names)}, once for all rows of a "
        "batch. If a row alone may take another branch, set max_batch_size to 1"
    ]
