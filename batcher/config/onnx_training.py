"""Which operators of an ONNX file run as in training.

Such operators answer without an error, and wrongly: dropout draws at random, and batch
normalisation takes mean and variance from the rows of the batch, so that the answer for a row
depends on its neighbours. An operator says how it runs:

    BatchNormalization from opset 14    the attribute `training_mode` is 1
    BatchNormalization before           there are outputs for the new mean and variance
    Dropout from opset 12               its third input is true
    Dropout before                      it never runs as in training

The numbers of the fields are those of `onnx.proto`.
"""

from __future__ import annotations

from batcher.config.wire_messages import MAX_DEPTH, Message, MessageReader

_BOOL = 9
"""ONNX's number of the type of booleans."""

_MODE_OPSET = 14
"""First version of the operators in which batch normalisation has an attribute for its mode."""


def training_operators(reader: MessageReader, model: Message) -> list[str]:
    """Return the kinds of operators of `model` that run as in training, by name.

    Raises:
        ValueError: the file is no ONNX.
    """
    walk = _Walk(reader, _opset(reader, model))
    for graph in reader.messages(model, 7):
        walk.read_graph(graph, 0)
    for function in reader.messages(model, 25):
        for node in reader.messages(function, 7):
            walk.read_node(node, 0)
    return walk.found()


def _opset(reader: MessageReader, model: Message) -> int:
    """Return the version of ONNX's own operators that `model` is of."""
    for opset in reader.messages(model, 8):
        if reader.text_of(opset, 1) in ("", "ai.onnx"):
            return reader.number_of(opset, 2)
    return 0


class _Walk:
    """Reads all nodes, and keeps what tells of training."""

    def __init__(self, reader: MessageReader, opset: int) -> None:
        self._reader = reader
        self._opset = opset
        self._true: set[str] = set()  # tensors that are true in every run
        self._same: dict[str, str] = {}  # outputs of `Identity`, and what they are
        self._modes: list[str] = []  # third inputs of dropouts
        self._normalises = False

    def read_graph(self, graph: Message, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ValueError("expected fewer graphs within graphs")
        for tensor in self._reader.messages(graph, 5):
            if self._is_true(tensor):
                self._true.add(self._reader.text_of(tensor, 8))
        for node in self._reader.messages(graph, 1):
            self.read_node(node, depth)

    def read_node(self, node: Message, depth: int) -> None:
        reader = self._reader
        kind = reader.text_of(node, 4)
        attributes = list(reader.messages(node, 5))
        if kind in ("Identity", "Dropout"):
            inputs = [reader.text(each) for each in reader.messages(node, 1)]
            if kind == "Dropout":
                self._modes += inputs[2:]
            elif inputs:  # a broken file may have none
                self._same[reader.text_of(node, 2)] = inputs[0]
        elif kind == "BatchNormalization":
            self._normalises |= self._is_training(node, attributes)
        elif kind == "Constant":
            tensors = [each for one in attributes for each in reader.messages(one, 5)]
            if any(map(self._is_true, tensors)):
                self._true.add(reader.text_of(node, 2))
        for attribute in attributes:
            for number in (6, 11):
                for graph in reader.messages(attribute, number):
                    self.read_graph(graph, depth + 1)

    def found(self) -> list[str]:
        """Return the kinds of operators that run as in training."""
        drops = self._true & self._sources(self._modes)
        kinds = {"BatchNormalization": self._normalises, "Dropout": drops}
        return [kind for kind, is_training in kinds.items() if is_training]

    def _sources(self, names: list[str]) -> set[str]:
        """Return `names` and the tensors that these are, through all `Identity`."""
        known = set(names)
        while names:
            same = {self._same[name] for name in names if name in self._same}
            names = list(same - known)  # names of a broken file may be a circle
            known |= same
        return known

    def _is_training(self, node: Message, attributes: list[Message]) -> bool:
        """Return whether a batch normalisation runs as in training."""
        if self._opset < _MODE_OPSET:
            return sum(1 for each in self._reader.messages(node, 2) if each.stop > each.start) > 1
        return any(
            self._reader.text_of(each, 1) == "training_mode" and self._reader.number_of(each, 3)
            for each in attributes
        )

    def _is_true(self, tensor: Message) -> bool:
        """Return whether `tensor` is the one boolean value true."""
        reader = self._reader
        if reader.number_of(tensor, 2) != _BOOL:
            return False
        raw = next(reader.messages(tensor, 9), None)
        if raw is not None:
            return any(reader.data(raw, 1))
        return any(reader.integers(tensor, 5))
