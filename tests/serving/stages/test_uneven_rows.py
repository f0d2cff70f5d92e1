"""Texts of one request with unequal numbers of tokens: cut into pieces, and joined again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.core.ragged import ragged
from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.core.spec import Array
from batcher.errors import ModelContractError, ModelError, TooLarge, Unavailable
from batcher.serving.stages.uneven_rows import PIECE_ROWS, PieceAnswers, PieceWait, pieces_of
from batcher.testing import ModelInProcess, batcher_model
from tests.support.embedders import DEFINITION, SOURCE, embedder, vector

assert batcher_model  # a fixture, by its name

Load = Callable[..., ModelInProcess]
TEXTS = ["one", "two", "three", "ten", "eleven", "a longer text than these"]


def request(*lengths: int) -> InferenceRequest:
    rows = [np.arange(length) for length in lengths]
    uneven = len(set(lengths)) > 1
    ids = ragged(rows) if uneven else np.stack(rows)
    return InferenceRequest("m", "1", {"ids": ids, "n": np.arange(len(rows))}, len(rows))


def answer(**outputs: Array) -> InferenceResponse:
    return InferenceResponse("m", "1", outputs, 0.5, 1.0, 3)


def test_a_request_of_unequal_rows_shares_batches_and_keeps_its_order(
    batcher_model: Load, tmp_path: Path
) -> None:
    # Costs of no warm-up: a slow moment there would let batches be cut by length.
    model = batcher_model(embedder(tmp_path), max_batch_size=64, warmup=False)
    whole = model.submit({"text": TEXTS})
    other = model.submit({"text": "four"})
    assert model.step() == len(TEXTS) + 1
    assert whole.outputs["embedding"].tolist() == [vector(text) for text in TEXTS]
    assert whole.outputs["tokens"].tolist() == [1 + len(text) for text in TEXTS]
    assert other.outputs["embedding"].tolist() == [vector("four")]


def test_rows_of_one_length_stay_together_up_to_a_number_that_fills_batches() -> None:
    pieces = pieces_of(request(*[4] * (PIECE_ROWS + 2), 9, 4))
    assert [piece.places for piece in pieces] == [
        list(range(PIECE_ROWS)),
        [PIECE_ROWS, PIECE_ROWS + 1, PIECE_ROWS + 3],
        [PIECE_ROWS + 2],
    ]
    assert [piece.request.inputs["ids"].shape for piece in pieces] == [(8, 4), (3, 4), (1, 9)]
    assert pieces[1].request.inputs["n"].tolist() == pieces[1].places


def test_a_request_of_equal_rows_goes_on_as_it_is() -> None:
    whole = request(5, 5, 5)
    (piece,) = pieces_of(whole)
    assert piece.request is whole


def test_a_piece_that_fails_fails_the_request_and_cancels_the_others(
    batcher_model: Load, tmp_path: Path
) -> None:
    model = batcher_model(embedder(tmp_path), max_batch_size=1, pipeline_depth=1)
    loud, calm = model.submit({"text": ["a!", "calm", "and long"]}), model.submit({"text": "calm"})
    assert model.step() == 1
    with pytest.raises(ModelError, match="no shouting"):
        _ = loud.outputs
    # One more piece was on its way already, and the last one never runs.
    assert list(iter(model.step, 0)) == [1, 1]
    assert calm.outputs["embedding"].tolist() == [vector("calm")]


def test_a_client_that_leaves_takes_all_pieces_along(batcher_model: Load, tmp_path: Path) -> None:
    model = batcher_model(embedder(tmp_path))
    gone, stays = model.submit({"text": TEXTS}), model.submit({"text": "four"})
    gone.cancel()
    assert model.step() == 1
    assert stays.is_there


def test_more_rows_than_the_queue_can_ever_hold_are_refused(
    batcher_model: Load, tmp_path: Path
) -> None:
    model = batcher_model(embedder(tmp_path), max_queue_rows=4)
    with pytest.raises(TooLarge, match=r"expected at most 4 rows, .*; got 6"):
        model.predict({"text": TEXTS})


def test_the_longest_of_unequal_rows_decides_what_warm_up_runs(
    batcher_model: Load, tmp_path: Path
) -> None:
    sample = "    sample = {'text': ['a', 'bcd']}\n"
    folder = embedder(tmp_path)
    (folder / "1" / "code.py").write_text(SOURCE.replace("    def pre", f"{sample}\n    def pre"))
    model = batcher_model(folder, warmup=True)
    assert model.predict({"text": "ok"})["tokens"].tolist() == [3]


def test_rows_that_are_not_padded_have_one_length(batcher_model: Load, tmp_path: Path) -> None:
    without = "\n".join(line for line in DEFINITION.splitlines() if not line.startswith("prepared"))
    model = batcher_model(embedder(tmp_path, definition=without))
    with pytest.raises(ModelContractError, match="pad them, or name 'ids' with a `pad`"):
        model.predict({"text": TEXTS})


def test_outputs_of_unequal_lengths_and_texts_keep_their_rows() -> None:
    pieces = pieces_of(request(2, 3, 2))
    texts = [np.array([b"a", b"c"], object), np.array([b"b"], object)]
    cut = [np.zeros((2, 2)), np.ones((1, 3))]
    answers = [answer(text=text, cut=own) for text, own in zip(texts, cut, strict=True)]
    joined = PieceAnswers(pieces, answers).joined()
    assert joined.outputs["text"].tolist() == [b"a", b"b", b"c"]
    assert [row.tolist() for row in joined.outputs["cut"]] == [[0, 0], [1, 1, 1], [0, 0]]
    assert (joined.queue, joined.compute, joined.batch_size) == (0.5, 2.0, 3)
    with pytest.raises(ModelContractError, match=r"each of the 2 pieces .* got that of 1"):
        PieceAnswers(pieces, [answer(text=texts[0]), answer()]).joined()


def test_nobody_is_asked_to_send_again_what_has_run_in_part() -> None:
    waiting: list[Deferred[InferenceResponse]] = []

    def go_on(_: object) -> Deferred[InferenceResponse]:
        waiting.append(Deferred())
        return waiting[-1]

    failures: list[Failure] = []
    PieceWait(pieces_of(request(2, 3, 4)), go_on).answered.addErrback(failures.append)
    waiting[0].callback(answer())
    waiting[1].errback(Unavailable("lost", retry_after=3))
    assert [failure.value.retry_after for failure in failures] == [0]  # type: ignore[attr-defined]
    assert waiting[2].called


def test_a_piece_that_is_refused_takes_back_those_before_it() -> None:
    waiting: list[Deferred[InferenceResponse]] = []
    cancelled: list[object] = []

    def go_on(_: object) -> Deferred[InferenceResponse]:
        if len(waiting) == 2:
            raise Unavailable("full")
        waiting.append(Deferred(cancelled.append))
        return waiting[-1]

    with pytest.raises(Unavailable, match="full"):
        PieceWait(pieces_of(request(2, 3, 4)), go_on)
    assert cancelled == waiting
