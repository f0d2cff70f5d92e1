"""Which inputs of an ONNX graph decide a branch (`If`) by their values.

A branch is taken once for a whole batch. Where values of rows decide, the answer for a row depends
on its neighbours. The sizes of an input do not: `Shape` and `Size` give the same for any values.

Names are followed from node to node in the order of the file, which ONNX wants to be the order of
the computation. Branches within subgraphs and functions are not looked at. Which inputs reach a
name is a number with a bit for each input: sets would take 170 MB for 20,000 nodes and 192 inputs,
as language models have them.

The numbers of the fields are those of `onnx.proto`.
"""

from __future__ import annotations

from batcher.config.wire_messages import Message, MessageReader

_SIZES = frozenset(("Shape", "Size"))
"""Operators whose results depend on the sizes of their inputs alone."""


def deciding_inputs(reader: MessageReader, graph: Message) -> list[str]:
    """Return the names of inputs of `graph` by whose values a branch is taken, sorted.

    Raises:
        ValueError: the file is no ONNX.
    """
    inputs = [reader.text_of(value, 1) for value in reader.messages(graph, 11)]
    reached = {name: 1 << place for place, name in enumerate(inputs)}
    deciding = 0
    for node in reader.messages(graph, 1):
        kind = reader.text_of(node, 4)
        found = 0
        for source in reader.messages(node, 1):
            found |= reached.get(reader.text(source), 0)
        if kind == "If":
            deciding |= found
        if found and kind not in _SIZES:
            outputs = map(reader.text, reader.messages(node, 2))
            reached.update({name: found for name in outputs if name})  # '' is left out by a node
    return sorted(name for place, name in enumerate(inputs) if deciding >> place & 1)
