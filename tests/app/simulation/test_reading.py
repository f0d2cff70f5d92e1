"""What the words of the command line mean, and what is said of others."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from batcher.app.simulation.candidates import SHIPPED, read_candidate
from batcher.app.simulation.costs import AffineCost, Noise, TableCost, read_cost
from batcher.app.simulation.distributions import read_distribution
from batcher.app.simulation.loads import ClosedLoad, OpenLoad, count_of, read_load, text_of
from batcher.app.simulation.ragged import recorded_lengths
from batcher.app.simulation.reading import duration, duration_text
from batcher.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5ms", 5e-3), ("250us", 250e-6), ("250µs", 250e-6), ("1.5 s", 1.5), ("2min", 120), ("0", 0)],
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "ms", "-1ms", "5 hours", "", "nan"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a time such as 5ms.*; got"):
        duration(text)


@pytest.mark.parametrize("text", ["4ms", "250us", "1.5s", "0us"])
def test_times_are_written_as_they_are_read(text: str) -> None:
    assert duration_text(duration(text)) == text


def test_a_cost_is_a_line_a_list_of_sizes_or_a_file(tmp_path: Path) -> None:
    assert read_cost("4ms+0.25ms") == AffineCost(4e-3, 0.25e-3)
    listed = read_cost("8=3ms,1=2ms,32=9ms")
    file = tmp_path / "costs.csv"
    file.write_text("rows,seconds\n1,0.002\n8,0.003\n\n32,0.009\n")
    for cost in (listed, read_cost(str(file))):
        sizes = [cost.seconds(rows) for rows in (1, 4.5, 8, 20, 32, 40)]
        assert sizes == pytest.approx([2e-3, 2.5e-3, 3e-3, 6e-3, 9e-3, 11e-3])


def test_below_the_smallest_size_a_batch_takes_as_long_and_beyond_the_largest_never_less() -> None:
    cost = TableCost([(8, 3e-3), (16, 2e-3)])
    assert [cost.seconds(rows) for rows in (1, 16, 64)] == [3e-3, 2e-3, 2e-3]
    assert TableCost([(8, 4e-3)]).seconds(16) == 8e-3


@pytest.mark.parametrize("text", ["4ms", "no.csv", "1=2", "4ms+", "0ms+0ms", "=,", "-1=2ms"])
def test_what_is_no_cost_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        read_cost(text)


def test_noise_leaves_the_mean_as_it_is() -> None:
    noise = Noise(0.3, seed=1)
    factors = [noise.factor() for _ in range(5000)]
    assert np.mean(factors) == pytest.approx(1, rel=0.02)
    assert np.std(np.log(factors)) == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize(
    ("text", "mean", "least", "most"),
    [
        ("4", 4, 4, 4),
        ("1..8", 4.5, 1, 8),
        ("geometric:4", 4, 1, 100),
        ("lognormal:64,0.8", 88.1, 1, 2000),
        ("1=0.9,32=0.1", 4.1, 1, 32),
        ("exp:10", 10, 1, 200),
    ],
)
def test_a_distribution_draws_what_it_says(text: str, mean: float, least: int, most: int) -> None:
    found = read_distribution(text, "rows")
    values = list(islice(found.whole(np.random.default_rng(1)), 20_000))
    assert found.mean == pytest.approx(mean, rel=0.01)
    assert np.mean(values) == pytest.approx(mean, rel=0.05)
    assert least <= min(values) <= max(values) <= most


def test_a_distribution_of_times_has_units() -> None:
    found = read_distribution("10ms..30ms", "deadline", duration)
    values = list(islice(found.values(np.random.default_rng(1)), 1000))
    assert found.mean == pytest.approx(20e-3)
    assert 10e-3 <= min(values) < 12e-3 < 28e-3 < max(values) <= 30e-3


@pytest.mark.parametrize("text", ["many", "8..1", "gauss:3", "1=0", "lognormal:3", "geometric:0.5"])
def test_what_is_no_distribution_is_refused_with_all_forms(text: str) -> None:
    with pytest.raises(ConfigError, match="rows: expected"):
        read_distribution(text, "rows")


@pytest.mark.parametrize(
    "text",
    [
        "poisson:0.5",
        "constant:0.5",
        "gamma:0.5,cv=3",
        "onoff:0.5,on=20ms,off=60ms",
        "poisson:500/s",
    ],
)
def test_an_open_load_has_the_rate_that_it_says(text: str) -> None:
    (load,) = read_load(text)
    assert isinstance(load, OpenLoad)
    times = [each.time for each in islice(load.arrivals(1000, np.random.default_rng(1)), 40_000)]
    assert times == sorted(times)
    assert len(times) / times[-1] == pytest.approx(500, rel=0.1)


def test_gamma_and_on_off_loads_come_in_bursts() -> None:
    def variation(text: str) -> float:
        (load,) = read_load(text)
        assert isinstance(load, OpenLoad)
        drawn = islice(load.arrivals(1000, np.random.default_rng(1)), 40_000)
        distances = np.diff([each.time for each in drawn])
        return float(distances.std() / distances.mean())

    assert variation("poisson:0.5") == pytest.approx(1, rel=0.05)
    assert variation("gamma:0.5,cv=3") == pytest.approx(3, rel=0.1)
    assert variation("onoff:0.5,on=20ms,off=60ms") > 2


def test_loads_are_joined_and_closed_loops_think() -> None:
    load = read_load("poisson:0.3+closed:8,think=exp:1.5ms")
    assert text_of(load) == "poisson:0.3+closed:8,think=exp:1.5ms"
    closed = load[1]
    assert isinstance(closed, ClosedLoad)
    assert (closed.clients, closed.think.mean) == (8, 1.5e-3)
    assert count_of(load) is None


def test_a_trace_is_csv_or_lines_of_json_with_as_many_numbers_as_it_has(tmp_path: Path) -> None:
    texts = {
        "a.csv": "10,1,0.5,2\n12,3\n",
        "b.csv": "deadline,seconds,rows,level,model\n,12,3,,m\n0.5,10,1,2,m\n",
        "c.jsonl": '{"seconds":10,"rows":1,"deadline":0.5,"level":2}\n{"seconds":12,"rows":3}\n',
        "d.jsonl": "[10, 1, 0.5, 2]\n[12, 3, null]\n",
        "e.csv": '\n"seconds", "rows","deadline","level"\n10,"1",0.5,2.0\n12,3,,\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (load,) = read_load(f"trace:{tmp_path / name},speed=2")
        assert isinstance(load, OpenLoad)
        found = [tuple(each) for each in load.arrivals(1.0, np.random.default_rng(1))]
        assert found == [(0.0, 1, 0.5, 2, ()), (1.0, 3, None, None, ())], name
        assert load.total == 2


def test_a_trace_may_have_the_lengths_of_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("seconds,length,length2\n1,16,9\n2,8,4\n3,,\n")
    (load,) = loads = read_load(f"trace:{tmp_path / 't.csv'}")
    assert isinstance(load, OpenLoad)
    arrivals = load.arrivals(1.0, np.random.default_rng(1))
    assert [each.lengths for each in arrivals] == [(16, 9), (8, 4), ()]
    first, second = recorded_lengths(loads)
    assert (first.mean, second.mean) == (12, 6.5)
    assert recorded_lengths(read_load("closed:4")) == ()


def test_the_lines_of_a_trace_have_as_many_lengths_each(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("seconds,length,length2\n1,16,9\n2,8,\n")
    with pytest.raises(ConfigError, match=r"as many lengths in each line; got \[1, 2\]"):
        recorded_lengths(read_load(f"trace:{tmp_path / 't.csv'}"))


def test_a_cost_may_count_the_elements_of_padded_rows(tmp_path: Path) -> None:
    assert read_cost("4ms+0.25ms+2us").seconds(8, 100) == pytest.approx(4e-3 + 8 * 0.45e-3)
    (tmp_path / "c.csv").write_text("1,2e-3,16\n8,4e-3,16\n1,4e-3,64\n8,16e-3,64\n")
    cost = read_cost(str(tmp_path / "c.csv"))
    assert cost.has_elements
    assert [cost.seconds(8, length) for length in (4, 16, 40, 64, 88)] == pytest.approx(
        [4e-3, 4e-3, 10e-3, 16e-3, 22e-3]
    )
    (tmp_path / "c.csv").write_text("1,2e-3,16\n8,4e-3\n")
    with pytest.raises(ConfigError, match="elements in each line or in none"):
        read_cost(str(tmp_path / "c.csv"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2\nx,y\n", r"t.csv:2: expected seconds, rows"),
        ("", "got an empty file"),
        ("1,2\n2,-5\n", r"t.csv:2: rows: expected a whole number of 1 or more; got -5"),
        ("seconds,length\n1,2.5\n", r"t.csv:2: length: expected a whole number .*; got 2.5"),
        ("1,1,-3\n", r"t.csv:1: deadline: expected a number of 0 or more; got -3"),
        ("1,1,1,0\n", r"t.csv:1: level: expected a whole number of 1 or more; got 0"),
        ("[" * 100_000, r"t.csv:1: expected seconds, rows.*; got '\[\[\["),
        ("[1, true]", r"t.csv:1: expected seconds, rows"),
        ("[1, 1" + "0" * 400 + "]", r"t.csv:1: expected seconds, rows"),
        ("1," + "1" * 200_000, r"t.csv:1: expected seconds, rows"),
    ],
)
def test_a_wrong_trace_is_refused_with_the_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_load(f"trace:{tmp_path / 't.csv'}")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_load("trace:no.csv")


@pytest.mark.parametrize(
    "text",
    [
        "poisson",
        "poisson:0",
        "poisson:x",
        "uniform:0.5",
        "gamma:0.5,cv=0",
        "closed:0",
        "closed:1.5",
        "poisson:0.5+",
        "closed:8,pause=1ms",
        "onoff:0.5,on=0ms",
        "poisson:0.5,cv=2",
    ],
)
def test_what_is_no_load_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        read_load(text)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_policy_of_the_settings_can_be_compared(name: str) -> None:
    assert read_candidate(name).settings["policy"] == name


def test_a_policy_takes_a_time_and_settings() -> None:
    assert read_candidate("delay:5ms").settings["max_delay_ms"] == 5.0
    assert read_candidate("slo:20ms").settings["slo_ms"] == 20.0
    assert read_candidate("deferred:20ms").settings["slo_ms"] == 20.0
    assert read_candidate("eager,pipeline_depth=1").settings["pipeline_depth"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("eagre", "policy: expected eager"),
        ("threshold", "threshold:ROWS"),
        ("delay:5", "expected a time"),
        ("eager,pipeline=1", "unknown setting pipeline"),
        ("eager,pipeline_depth=9", "pipeline_depth"),
        ("eager,fast", "SETTING=VALUE"),
    ],
)
def test_what_is_no_policy_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_candidate(text)
