"""What fronts count, as the engine shows it."""

from __future__ import annotations

import re

from batcher.frontends.link.counts import FrontCounts, add_counts
from batcher.serving.metrics import ServerMetrics


def test_what_fronts_count_is_added_up() -> None:
    ours, theirs = ServerMetrics(), ServerMetrics()
    counts = FrontCounts(theirs)
    for _ in range(2):
        for metrics in (ours, theirs):
            metrics.answers["m", "/predict"].observe(200, 0.01)
        theirs.dropped_lines["access_log"] += 1
        theirs.fetches.count("fetched", 5)
        theirs.connections = 3
        assert add_counts(ours, counts.take()).connections == 3
    found = ours.answers["m", "/predict"]
    assert (found.statuses, found.latency.count) == ({200: 4}, 4)
    assert ours.dropped_lines == {"access_log": 2}
    assert (ours.fetches.outcomes, ours.fetches.nbytes) == ({"fetched": 2}, 10)


def test_lines_that_the_outputs_of_fronts_drop_are_added_up_with_those_of_the_engine() -> None:
    engine, totals = ServerMetrics(), {"stdout": 0, "stderr": 0}
    engine.dropped_by_outputs = lambda: {"stdout": 0, "stderr": 5}
    fronts = [ServerMetrics(), ServerMetrics()]
    for each in fronts:
        each.dropped_by_outputs = totals.copy
    counts = [FrontCounts(each) for each in fronts]
    for total in (2, 2, 3):  # since the start of a front, as its outputs count
        totals["stderr"] = total
        for one in counts:
            add_counts(engine, one.take())
    text = engine.render().decode()
    found = re.findall(r'^batcher_dropped_lines_total{output="(\w+)"} (\S+)$', text, re.M)
    assert sorted(found) == [("stderr", "11.0"), ("stdout", "0.0")]
