"""Members of requests of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from batcher.codecs.formats.long_lists import LongList
from batcher.codecs.oip.members import list_of


class TwoPieces(LongList):
    """A list of which nobody may read the second piece."""

    def pieces(self) -> Iterator[list[Any] | LongList]:
        yield [{"name": "x"}, {"name": "x"}]
        pytest.fail("the second piece was read")


def test_of_a_long_list_of_tensors_no_more_is_read_than_is_looked_at() -> None:
    entries = iter(list_of({"inputs": TwoPieces()}, "inputs"))
    assert [next(entries), next(entries)] == [{"name": "x"}] * 2
