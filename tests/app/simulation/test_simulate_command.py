"""`batcher simulate`: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from batcher.app.cli import main
from batcher.app.simulation.command import LOADS, POLICIES

FEW = ("--requests", "300")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *arguments])


def test_alone_it_compares_policies_under_open_and_closed_loads() -> None:
    done = run(*FEW)
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines() if line]
    assert lines[0][:4] == ["load", "policy", "offered/s", "answered/s"]
    assert [(line[0], line[1]) for line in lines[1:]] == [
        (load, policy) for load in LOADS for policy in POLICIES
    ]


def test_options_take_all_words_up_to_the_next_one() -> None:
    done = run(*FEW, "--policy", "eager", "delay:5ms", "--load=poisson:0.2", "closed:4", "--json")
    found = [(each["load"], each["policy"]) for each in json.loads(done.stdout)]
    assert found == [
        (load, policy) for load in ("poisson:0.2", "closed:4") for policy in ("eager", "delay:5ms")
    ]


def test_with_deadlines_each_policy_runs_with_and_without_early_drop() -> None:
    done = run(*FEW, "--load", "poisson:2", "--policy", "eager", "--deadline", "20ms", "--json")
    early, none = json.loads(done.stdout)
    assert (early["drop"], none["drop"]) == ("early", "none")
    assert early["goodput"] > 1.5 * none["goodput"]
    assert early["refused"] + early["dropped"] > 0.2
    assert early["latency"]["p99"] <= 20e-3


def test_what_nobody_answered_has_no_latency(tmp_path: Path) -> None:
    done = run(
        *("--load", "poisson:1", "--policy", "eager", "--deadline", "1ms", "--drop", "expired"),
        *(*FEW, "--json"),
    )
    (found,) = json.loads(done.stdout)
    assert (found["answered"], found["latency"]["mean"]) == (0, None)


def test_a_trace_is_run_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "".join(f"{n / 100},{n % 3 + 1},,{n % 2 + 1}\n" for n in range(90))
    )
    load = f"trace:{tmp_path / 't.csv'}"
    (found,) = json.loads(run("--load", load, "--policy", "eager", "--json").stdout)
    assert found["requests"] == 90
    assert found["offered"] == pytest.approx(200, rel=0.05)
    assert set(found["levels"]) == {"1", "2"}


def test_rules_for_late_requests_are_compared_where_a_trace_has_deadlines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "".join(f"{n / 100},1,{0.05 if n else ''}\n" for n in range(20))
    )
    load = f"trace:{tmp_path / 't.csv'}"
    found = json.loads(run("--load", load, "--policy", "eager", "--json").stdout)
    assert [each["drop"] for each in found] == ["early", "none"]


def test_rows_of_a_trace_have_its_lengths_and_others_those_that_are_said(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "seconds,length\n" + "".join(f"{n / 5000},{n % 4 + 1}\n" for n in range(200))
    )
    words = ("--cost", "1ms+0ms+1us", "--policy", "eager", "--json")
    (found,) = json.loads(run("--load", f"trace:{tmp_path / 't.csv'}", *words).stdout)
    assert 1 < found["padding"] < 4
    assert "padding" in run("--length", "1..9", "--load", "closed:9", "--policy", "eager").stdout
    (found,) = json.loads(run("--load", "closed:4", *words[2:4], *FEW, "--json").stdout)
    assert found["padding"] is None


def test_many_devices_share_the_load_and_rows_are_counted() -> None:
    done = run(
        *("--devices", "50", "--rows", "1..8", "--load", "poisson:0.5", "--policy", "eager"),
        *("--requests", "1500", "--json"),
    )
    (found,) = json.loads(done.stdout)
    assert found["capacity"] == pytest.approx(50 * 32 / 12e-3)
    assert found["answered"] == pytest.approx(found["offered"], rel=0.1)
    assert found["offered"] == pytest.approx(0.5 * found["capacity"], rel=0.1)


def test_charts_are_written_for_each_kind_of_load(tmp_path: Path) -> None:
    done = run(
        *("--load", "poisson:0.2", "poisson:0.8", "closed:4", "closed:8"),
        *("--policy", "eager", "delay:5ms", *FEW, "--svg", str(tmp_path / "charts")),
    )
    names = sorted(path.name for path in (tmp_path / "charts").iterdir())
    assert names == sorted(
        f"{kind}-{what}.svg"
        for kind in ("poisson", "closed")
        for what in ("answers", "mean", "p99")
    )
    assert all(name in done.stderr for name in names)
    for path in (tmp_path / "charts").iterdir():
        texts = [each.text for each in ElementTree.parse(path).iter() if each.tag.endswith("text")]
        assert {"eager", "delay:5ms"} <= set(texts)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cost", "fast"), "expected a line such as 4ms+0.25ms"),
        (("--policy", "eagre"), "policy: expected eager"),
        (("--policy", "best-of-all"), "policy: expected best-delay"),
        (("--load", "poisson"), "load: expected poisson:0.7"),
        (("--load", "poisson:0"), "load: expected a share or a rate above 0; got 'poisson:0'"),
        (("--load", "poisson:0.3,cv=2"), "load: expected no option cv of poisson; got"),
        (("--drop", "early"), "set --deadline"),
        (
            ("--deadline", "20ms", "--drop", "late"),
            "drop: expected early, expired, none; got 'late'",
        ),
        (("--deadline", "20"), "expected a time such as 5ms"),
        (("--policy", "optimum", "--load", "closed:4"), "policy optimum: expected one open load"),
        (("--set", "pipeline_depth"), "expected KEY=VALUE"),
        (("--set", "max_delay=5"), "unknown setting max_delay"),
        (("--devices", "0"), "--devices"),
        (("--rows", "0.5"), "rows: expected whole numbers of 1 or more"),
        (("--rows", "0..3"), "rows: expected whole numbers of 1 or more"),
        (("--rows", "0=1,2=1"), "rows: expected whole numbers of 1 or more"),
        (("--level", "9", "--load", "poisson:0.5"), "level: expected 1 to 4"),
        (("--svg", "/dev/null/charts", "--load", "closed:4", "closed:8"), "cannot be written"),
        (("--seed", "-1"), "--seed"),
        (("--cost-from", "12ms+1ms"), "expected TIME=COST"),
        (("--load", "closed:4@5s..1s"), "expected a beginning before the end"),
        (("--noise", "-1"), "--noise"),
        (("--policy",), "--policy"),
        (("--cost", "4ms+1ms+1us"), "expected --length, or a trace with lengths"),
        (("--cost", "4ms+1ms+1us+1us"), "expected a line such as 4ms+0.25ms"),
        (("--pad-sizes", "16,32"), "needs rows with lengths; set --length"),
        (("--length", "8", "--pad-sizes", "a,8"), "--pad-sizes: expected a number"),
        (("--length", "8", "--pad-sizes", "2.5"), "--pad-sizes: expected whole numbers"),
        (("--length", "0..8"), "length: expected whole numbers of 1 or more"),
        (("--length", "8", "--policy", "optimum"), "optimum: expected rows of one length"),
    ],
)
def test_a_wrong_word_ends_it_with_what_was_expected(arguments: tuple[str, ...], said: str) -> None:
    done = run(*FEW, *arguments)
    assert done.exit_code != 0
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_loads_and_costs_change_while_it_runs() -> None:
    done = run(
        *("--load", "closed:4@0s..1s+constant:100/s@2s..3s", "--cost", "4ms+0ms"),
        *("--cost-from", "2s=40ms+0ms", "--policy", "eager", "--set", "max_batch_size=1", "--json"),
    )
    (found,) = json.loads(done.stdout)
    # 4 ms a request for a second, and 100 requests of 40 ms behind each other
    assert found["requests"] == pytest.approx(250 + 100, abs=3)
    assert found["latency"]["longest"] == pytest.approx(4.0 - 1.0, rel=0.05)


def test_a_load_without_other_values_has_no_chart(tmp_path: Path) -> None:
    done = run(*FEW, "--load", "closed:4", "--policy", "eager", "--svg", str(tmp_path))
    assert "no charts: expected loads of one kind with several values" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_rows_of_many_batches_are_cut_and_what_the_queue_cannot_hold_is_refused() -> None:
    done = run(
        *FEW, "--load", "poisson:0.5", "--rows", "100=9,5000=1", "--policy", "eager", "--json"
    )
    (found,) = json.loads(done.stdout)
    assert found["refused"] == pytest.approx(0.1, abs=0.06)
    assert found["latency"]["p50"] > 3 * 12e-3
    assert found["reasons"]["full"] > 0.5


def test_levels_are_served_by_their_weights() -> None:
    done = run(
        *("--load", "poisson:0.97", "--level", "1=0.5,3=0.5", "--policy", "eager", "--json"),
        *("--requests", "3000"),
    )
    (found,) = json.loads(done.stdout)
    assert found["levels"]["1"] < found["levels"]["3"]
