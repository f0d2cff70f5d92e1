"""Padded rows in a tuning: their lengths, l(b, length), and the budget of elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.app.simulation.loads import read_load
from batcher.app.tuning.choosing import Setup, Simulator, element_budgets, ranked, search
from batcher.app.tuning.command import LENGTHS, TuneCommand
from batcher.app.tuning.curve import Curve, Timing
from batcher.app.tuning.lengths import RowSize, measured_places, simulated_rows, words_of_sizes
from batcher.app.tuning.reasons import with_reasons
from batcher.app.tuning.sample_rows import Lengths, length_of, padded_rows
from batcher.app.tuning.scaling import scaled_setup
from batcher.app.tuning.user_load import UserLoad
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import ModelSpec, TensorSpec, datatype
from batcher.errors import ConfigError

ROOT = Path(__file__).parents[3]
SIZES = (1, 2, 4, 8, 16, 32, 64)


def seconds(rows: int, length: int) -> float:
    """Elements are cheap up to 512 in a batch, as in a cache, and dear beyond."""
    elements = rows * length
    return 2e-3 + 1e-6 * elements + 20e-6 * max(elements - 512, 0)


def curve(length: int) -> Curve:
    return Curve(tuple(Timing(rows, (seconds(rows, length),)) for rows in SIZES), "")


BY_LENGTH = Setup({}, curve(32), {length: curve(length) for length in (8, 32, 128)})


def test_of_another_setup_the_middle_length_is_measured_and_the_others_follow_by_elements() -> None:
    # half the time from 512 elements on
    halved = tuple(
        Timing(rows, (seconds(rows, 32) * (0.5 if rows >= 16 else 1),)) for rows in SIZES
    )
    found = scaled_setup({"torch_threads": 2}, Curve(halved, ""), 32, BY_LENGTH.by_elements)
    assert found.by_elements[32].timings == halved
    assert found.curve.timings == halved
    for length, sizes in ((8, {8: 1.0, 64: 0.5}), (128, {1: 1.0, 4: 0.5, 64: 0.5})):
        scaled = found.by_elements[length]
        assert "not measured" in scaled.end
        for rows, share in sizes.items():
            timing = scaled.at(rows)
            assert timing is not None
            assert timing.seconds == pytest.approx(share * seconds(rows, length)), (length, rows)


def spec(**more: Any) -> ModelSpec:
    return ModelSpec("m", "1", (TensorSpec("x", datatype("FP32"), (-1, 2), pad=0, **more),), ())


TEXTS = ModelSpec(
    *("m", "1", (TensorSpec("text", datatype("BYTES"), ()),), ()),
    prepared=(TensorSpec("ids", datatype("INT64"), (-1,), pad=0),),
)


def simulator(**settings: Any) -> Simulator:
    plain = ModelSpec("m", "1", (TensorSpec("x", datatype("FP32"), (-1,), pad=0),), ())
    rows = simulated_rows(plain, [RowSize(length, length) for length in (8, 8, 32, 128)])
    user = UserLoad(read_load("closed:64"), "64 clients")
    present = ModelSettings.model_validate({"max_batch_size": 64, **settings})
    return Simulator(present, user, requests=1500, ragged=rows)


def test_where_elements_get_dear_a_batch_gets_a_budget_of_them() -> None:
    options = search(simulator(), [BY_LENGTH], lambda text: None)
    found = ranked(options)[0]
    assert found.changes["max_batch_elements"] == 512
    assert found.result.answered > 1.2 * options[0].result.answered
    reason = with_reasons(found.changes, options, None)["max_batch_elements"].reason
    assert reason.startswith("simulated ")
    assert "without it" in reason


def test_a_budget_that_is_too_small_is_given_up() -> None:
    options = search(simulator(max_batch_elements=128), [BY_LENGTH], lambda text: None)
    assert any(each.changes == {"max_batch_elements": None} for each in options)
    found = ranked(options)[0]
    assert found.changes["max_batch_elements"] == 512
    assert found.result.answered > options[0].result.answered


def test_budgets_hold_the_longest_row_and_bound_something() -> None:
    assert element_budgets({8: curve(8), 100: curve(100)}, 8) == [128, 256, 512]
    assert element_budgets({1: curve(1)}, 1) == []
    assert element_budgets({64: curve(64)}, 64) == [64, 128, 256, 512, 1024, 2048]
    assert max(element_budgets({100: curve(100)}, 64)) < 100 * 64


def test_simulated_batches_take_what_was_measured_with_rows_of_their_length() -> None:
    cost = BY_LENGTH.cost
    assert cost.seconds(8, 32) == pytest.approx(seconds(8, 32))
    assert cost.seconds(4, 20) == pytest.approx((seconds(4, 8) + seconds(4, 32)) / 2)
    assert BY_LENGTH.sizes == list(SIZES)


def test_the_shortest_the_middle_and_the_longest_row_are_measured() -> None:
    sizes = [RowSize(own, 8 * -(-own // 8)) for own in (30, 5, 9, 12, 31)]
    assert measured_places(sizes) == [1, 2, 0]
    assert measured_places(sizes[1:2]) == [0]
    assert words_of_sizes(sizes) == "5 to 31 elements a row, median 12"
    assert words_of_sizes(sizes[:1]) == "30 elements a row"


def test_simulated_rows_are_padded_as_the_model_pads_them() -> None:
    found = simulated_rows(spec(pad_to_multiple_of=8), [RowSize(10, 16), RowSize(40, 48)])
    assert found is not None
    assert [each.mean for each in found.lengths] == [12.5]  # lengths 5 and 20, of width 2
    drawn = found.drawn(np.random.default_rng(1))
    assert [next(drawn) for _ in range(3)] == [(5,), (20,), (5,)]
    assert (found.multiple, found.width, found.warmup_lengths) == (8, 2, (5,))
    assert found.elements((5,)) == 16
    picture = TensorSpec("x", datatype("FP32"), (3, -1, -1), pad=0)
    of_pictures = simulated_rows(ModelSpec("m", "1", (picture,), ()), [RowSize(75, 75)])
    assert of_pictures is not None
    assert of_pictures.elements((75,)) == 75
    assert simulated_rows(spec(), []) is None


def test_lengths_are_the_users_or_the_samples_or_those_of_warm_up() -> None:
    row = {"x": np.zeros((1, 3, 2), "f4")}
    rows, words = padded_rows(spec(), row, Lengths([2, 5], "--length 2..5"))
    assert ([length_of(spec(), each) for each in rows], words) == ([2, 5], "--length 2..5")
    texts = {"text": np.array([b"a bc", b"a b c d"], object)}
    rows, words = padded_rows(TEXTS, texts, Lengths())
    assert [each["text"].tolist() for each in rows] == [[b"a bc"], [b"a b c d"]]
    assert words == "the 2 rows of the model's sample"
    warmed = spec(warmup_lengths=(16, 64))
    rows, words = padded_rows(warmed, row, Lengths())
    assert [length_of(warmed, each) for each in rows] == [16, 64]
    assert words == "16, 64, as the model is warmed up"
    rows, words = padded_rows(spec(), row, Lengths())
    assert len(rows) == 1
    assert words.endswith("say yours with --length")


def command(trace: Path, **more: Any) -> TuneCommand:
    options: dict[str, Any] = {
        "model": "digits",
        "config": None,
        "rate": None,
        "clients": None,
        "trace": trace,
        "deadline": None,
        "rows": "1",
        "length": None,
        "time_text": "5s",
        "write": False,
        "svg": None,
    }
    return TuneCommand({**options, **more})


def test_a_trace_says_lengths_and_its_requests_get_rows_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "t.csv").write_text("seconds,length\n0,4\n1,9\n2,4\n")
    read = command(tmp_path / "t.csv")
    assert set(read._lengths.values) == {4, 9}
    assert (len(read._lengths.values), read._lengths.words) == (LENGTHS, "those of t.csv")
    (part,) = read._user.load
    arrivals = part.arrivals(0.0, np.random.default_rng(0))  # type: ignore[union-attr]
    assert [each.lengths for each in arrivals] == [(), (), ()]
    own = command(tmp_path / "t.csv", length="7")
    assert set(own._lengths.values) == {7}
    (tmp_path / "t.csv").write_text("seconds,length,length2\n0,4,5\n")
    with pytest.raises(ConfigError, match="one length a line; got 2"):
        command(tmp_path / "t.csv")
