"""Bodies while they arrive: whole in the end, and in no more memory than has arrived."""

from __future__ import annotations

from itertools import accumulate

import pytest

from batcher.codecs.arriving_body import SMALL_BYTES, ArrivingBody
from batcher.core.mappings import Mapping
from batcher.errors import BuffersFull

SIZES = (
    (0, 1, 2),
    (SMALL_BYTES - 1, 1, 1, 5),
    (SMALL_BYTES + 1,),
    (3, 2 * SMALL_BYTES, SMALL_BYTES, 7, 3 * SMALL_BYTES),
)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_the_pieces_of_a_body_are_whole_and_in_order(sizes: tuple[int, ...], known: bool) -> None:
    pieces = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    body = ArrivingBody(sum(sizes) if known else 0)
    for piece, arrived in zip(pieces, accumulate(sizes), strict=True):
        body.append(piece)
        assert len(body) == arrived
    assert body.whole() == b"".join(pieces)


def test_a_large_body_counts_what_has_arrived_and_not_what_was_declared() -> None:
    body = ArrivingBody(64 * SMALL_BYTES)
    body.append(bytes(SMALL_BYTES))
    body.append(b"1")
    assert body.held == SMALL_BYTES + 1


def test_a_large_body_of_known_length_never_moves() -> None:
    body = ArrivingBody(8 * SMALL_BYTES)
    body.append(bytes(SMALL_BYTES + 1))
    first = body.whole()  # a mapping that has a view can be neither moved nor grown
    for _ in range(6):
        body.append(bytes(SMALL_BYTES))
    assert len(body.whole()) == 7 * SMALL_BYTES + 1
    assert len(first) == SMALL_BYTES + 1


def test_a_body_that_cannot_grow_in_memory_is_refused_for_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = ArrivingBody()
    body.append(bytes(SMALL_BYTES + 1))

    def no_room(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(Mapping, "resize", no_room)
    with pytest.raises(BuffersFull, match=f"{4 * SMALL_BYTES} bytes.*no room"):
        body.append(bytes(SMALL_BYTES))
