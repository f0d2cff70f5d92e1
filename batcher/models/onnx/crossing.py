"""Outputs of a graph in which the rows of a batch meet, told by the names of axes.

A graph that holds each picture against each text, as CLIP does, takes `image[images,…]` and
`text[texts,…]` and gives `logits[images,texts]`. Both axes are as long as the batch. So the answer
of one request would hold numbers for the texts of others. Such a graph gets one row at a time.
"""

from __future__ import annotations

from batcher.config.onnx_definition import described
from batcher.config.onnx_file import Dim
from batcher.models.onnx.binding import Binding, Signature


def keep_rows_apart(binding: Binding, signature: Signature) -> None:
    """Limit `binding`, of a graph of this `signature`, to one row if rows meet in an output.

    Inference thread.
    """
    inputs = {**signature.inputs, **signature.defaults}
    rows: set[Dim] = set()
    for feed in binding.feeds:
        shape = inputs[feed.graph_name].shape
        if shape and feed.axis is not None and isinstance(shape[feed.axis], str):
            rows.add(shape[feed.axis])
    for fetch in binding.fetches:
        if sum(dim in rows for dim in fetch.source.shape or ()) > 1:
            binding.max_rows = 1
            binding.notes.append(
                f"output {fetch.tensor.name!r} of the graph is {described(fetch.source)}: a second "
                "axis is as long as the batch, where rows would meet, so each row runs alone"
            )
