"""How a step asks its model where the inputs may be ragged, hold texts, or not fit the model."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from batcher.core.element_sizes import SizedArrays, about_nbytes
from batcher.core.ragged import is_ragged
from batcher.core.request import InferenceRequest, InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec
from batcher.errors import ModelNotReady
from batcher.serving.pipelines.graph import Node
from batcher.serving.servable import Servable
from batcher.serving.stages.uneven_rows import PieceAnswers, PieceWait, pieces_of


def ask(
    node: Node, servable: Servable, inputs: dict[str, Array], rows: int, parameters: Parameters
) -> Deferred[Any]:
    """Have `servable` answer `rows` rows for the step `node`; fails and raises as `infer` does.

    Raises ModelNotReady: the model was replaced by one that the pipeline was not made for. Reactor
    thread.
    """
    _check_outputs(node, servable.spec)
    if node.is_even or not any(map(is_ragged, inputs.values())):
        # A model that was replaced a moment ago may take other inputs than the graph knows.
        exact = node.is_exact and servable.spec is node.spec
        return servable.infer(_about_sized(inputs), parameters, exact)
    spec = servable.spec
    request = InferenceRequest(spec.name, spec.version, inputs, rows, parameters)
    pieces = PieceWait(pieces_of(request), partial(_ask_piece, servable))
    return pieces.answered.addCallback(PieceAnswers.joined)


def _ask_piece(servable: Servable, piece: InferenceRequest) -> Deferred[InferenceResponse]:
    return servable.infer(piece.inputs, piece.parameters)


def _check_outputs(node: Node, spec: ModelSpec) -> None:
    """Raise ModelNotReady if a model that was replaced a moment ago answers in another way.

    The steps behind it take what it gives for what the graph knows.
    """
    if spec is node.spec:
        return
    given = {tensor.name: (tensor.datatype, tensor.shape) for tensor in spec.outputs}
    for tensor in node.given:
        if given.get(tensor.name) != (tensor.datatype, tensor.shape):
            raise ModelNotReady(
                f"step {node.name!r}: model {spec.name!r} was replaced by one with another output "
                f"{tensor.name!r} while the request ran"
            )


def _about_sized(inputs: dict[str, Array]) -> dict[str, Array]:
    """Return `inputs` with about their bytes: to add up those of many texts takes the loop long."""
    if not any(array.dtype.hasobject for array in inputs.values()):
        return inputs
    found = SizedArrays(inputs)
    found.nbytes = about_nbytes(inputs)
    return found
