"""Equal inputs have equal digests, and no others do."""

from __future__ import annotations

import numpy as np
import pytest

from batcher.core.digests import Digests
from batcher.core.spec import Array

ROWS = np.arange(8, dtype="<f4").reshape(2, 4)


def test_equal_inputs_have_equal_digests_however_they_lie_in_memory() -> None:
    strided = np.repeat(ROWS, 2, axis=0)[::2]
    assert not strided.flags.c_contiguous
    digests = Digests("m", "1")
    assert digests.of({"x": ROWS}) == digests.of({"x": strided})
    assert digests.of({"a": ROWS, "b": ROWS}) == digests.of({"b": ROWS, "a": ROWS})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": ROWS}, {"x": ROWS + 1}),
        ({"x": ROWS}, {"y": ROWS}),
        ({"x": ROWS}, {"x": ROWS.reshape(4, 2)}),
        ({"x": ROWS}, {"x": ROWS.view("<i4")}),
        ({"a": ROWS[:1], "b": ROWS[1:]}, {"a": ROWS[1:], "b": ROWS[:1]}),
        (
            {"x": np.array([b"ab", b"c"], object)},
            {"x": np.array([b"a", b"bc"], object)},
        ),
        ({"x": np.zeros((0, 4), "<f4")}, {"x": np.zeros((0, 5), "<f4")}),
    ],
)
def test_other_inputs_have_another_digest(one: dict[str, Array], other: dict[str, Array]) -> None:
    digests = Digests("m", "1")
    assert digests.of(one) != digests.of(other)


def test_another_use_has_another_digest() -> None:
    uses = [("m", "1"), ("m1", ""), ("m", "2"), ("", "m1"), ("m1",)]
    assert len({Digests(*texts).of({"x": ROWS}) for texts in uses}) == len(uses)
