"""A request whose rows have unequal lengths, as pieces whose rows have one length each.

A `preprocess` makes such rows of several texts, one row of tokens for each. A request has one
length wherever rows are batched. So the request is cut into pieces, and the answers of the pieces
are joined again:

    five texts         4, 9, 4, 7 and 9 tokens
    three pieces       rows 0 and 2, row 3, rows 1 and 4
    one answer         the rows in their order

Each piece waits in the queue by itself, and shares batches with whatever has about its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.core.ragged import is_ragged, joined_rows
from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.core.spec import Array
from batcher.errors import ModelContractError, Unavailable
from batcher.serving.stages.stage import GoOn

PIECE_ROWS = 8
"""Most rows of a piece. Small pieces fill batches to the last row; each costs the loop some 15
microseconds, as a request does.
"""


class Piece(NamedTuple):
    """Rows of one length.

    Attributes:
        places: which rows of the whole request these are; empty for all of them.
        request: the rows.
    """

    places: list[int]
    request: InferenceRequest


def pieces_of(request: InferenceRequest) -> list[Piece]:
    """Return `request` in pieces; one alone if no array of its inputs is ragged. Pool thread."""
    uneven = [array for array in request.inputs.values() if is_ragged(array)]
    if not uneven:
        return [Piece([], request)]
    by_shapes: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for row in range(request.rows):
        by_shapes.setdefault(tuple([array[row].shape for array in uneven]), []).append(row)
    return [
        Piece(
            places[start : start + PIECE_ROWS], _part(request, places[start : start + PIECE_ROWS])
        )
        for places in by_shapes.values()
        for start in range(0, len(places), PIECE_ROWS)
    ]


def _part(request: InferenceRequest, places: list[int]) -> InferenceRequest:
    """Return the rows of `request` at `places`, which have one length."""
    inputs = {
        name: joined_rows([array[places]]) if is_ragged(array) else array[places]
        for name, array in request.inputs.items()
    }
    return InferenceRequest(request.model, request.version, inputs, len(places), request.parameters)


class PieceAnswers(NamedTuple):
    """The answers to all pieces of a request.

    Attributes:
        pieces: the pieces.
        answers: one for each.
    """

    pieces: Sequence[Piece]
    answers: Sequence[InferenceResponse]

    def joined(self) -> InferenceResponse:
        """Return the answer to the request. Pool thread.

        Raises:
            ModelContractError: the model has not returned the same outputs in each batch.
        """
        first = self.answers[0]
        return InferenceResponse(
            first.model,
            first.version,
            {name: self._output(name) for name in first.outputs},
            max([answer.queue for answer in self.answers]),
            sum([answer.compute for answer in self.answers]),
            max([answer.batch_size for answer in self.answers]),
        )

    def _output(self, name: str) -> Array:
        found = [answer.outputs[name] for answer in self.answers if name in answer.outputs]
        if len(found) < len(self.answers):
            raise ModelContractError(
                f"output {name!r}: expected the output of each of the {len(self.answers)} pieces "
                f"that the request was cut into; got that of {len(found)}"
            )
        count = sum([piece.request.rows for piece in self.pieces])
        is_even = len({array.shape[1:] for array in found}) == 1
        if is_even and not any(map(is_ragged, found)):
            whole: Array = np.empty((count, *found[0].shape[1:]), found[0].dtype)
            for piece, array in zip(self.pieces, found, strict=True):
                whole[piece.places] = array
            return whole
        rows: list[Array] = [found[0]] * count
        for piece, array in zip(self.pieces, found, strict=True):
            for place, row in zip(piece.places, array, strict=True):
                rows[place] = row
        return joined_rows([rows])


class PieceWait:
    """Waits for the answers to all pieces of one request. Reactor thread.

    The first piece that fails fails the request, and the other pieces are cancelled.

    Attributes:
        answered: fires with the `PieceAnswers`. To cancel it cancels the pieces.
    """

    def __init__(self, pieces: Sequence[Piece], go_on: GoOn) -> None:
        """Have `go_on` answer each of the `pieces`; raises what it raises, and then none runs."""
        self.answered: Deferred[PieceAnswers] = Deferred(self._cancelled)
        self._pieces = pieces
        self._answers: dict[int, InferenceResponse] = {}
        self._waiting: dict[int, Deferred[None]] = {}
        self._ended = False
        try:
            for index, piece in enumerate(pieces):
                if self._ended:  # a piece has failed already
                    break
                answer = go_on(piece.request)
                self._waiting[index] = answer.addCallbacks(
                    self._take, self._fail, (index,), errbackArgs=(index,)
                )
        except BaseException:
            self._end()
            raise

    def _take(self, answer: InferenceResponse, index: int) -> None:
        self._waiting.pop(index, None)
        self._answers[index] = answer
        if len(self._answers) == len(self._pieces) and not self._ended:
            self._ended = True
            answers = [self._answers[place] for place in range(len(self._pieces))]
            self.answered.callback(PieceAnswers(self._pieces, answers))

    def _fail(self, failure: Failure, index: int) -> None:
        self._waiting.pop(index, None)
        if self._ended:
            return
        if self._answers and isinstance(failure.value, Unavailable):
            failure.value.retry_after = 0  # a part has run: nobody must send the request again
        self._end()
        self.answered.errback(failure)

    def _cancelled(self, _: object) -> None:
        self._end()

    def _end(self) -> None:
        """Drop the pieces that are not answered."""
        self._ended = True
        for waiting in list(self._waiting.values()):
            waiting.cancel()
        self._waiting.clear()
