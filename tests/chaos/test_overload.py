"""Twice as many requests as the model can answer, each with a deadline."""

from __future__ import annotations

import time
from pathlib import Path

from tests.chaos.clients import under_load
from tests.chaos.ledger import ANSWER_GRACE_S, Load
from tests.chaos.servers import SECONDS, is_quiet, serving
from tests.end_to_end.processes import until

TIMEOUT_MS = 300
REFUSED = {"503 predicted_late", "503 queue_full", "504 deadline_exceeded"}


def test_overload_is_answered_in_time_or_refused_and_other_models_do_not_notice(
    tmp_path: Path,
) -> None:
    # twice the 930 rows/s that the model can do
    flood = Load("slow", 64, rate=1860, timeout_ms=TIMEOUT_MS, identified=True)
    with serving(tmp_path, "ok", "slow") as server:
        with under_load(server, flood, Load("ok", 8, identified=True)) as ledger:
            time.sleep(SECONDS)
        outcomes = ledger.outcomes("slow")
        assert outcomes["200"] > 0, "what is not refused is answered"
        assert set(outcomes) <= {"200", *REFUSED}
        assert outcomes.total() > outcomes["200"], "there was more than it could do"
        # behind the deadline is only the way back to a client that is busy
        assert ledger.lateness[flood] < ANSWER_GRACE_S
        assert set(ledger.outcomes("ok")) == {"200"}
        until(lambda: is_quiet(server))
        assert "Traceback" not in server.errors


def test_a_flood_without_deadlines_is_refused_when_the_queue_is_full(tmp_path: Path) -> None:
    flood = Load("slow", 64, rate=1860)
    with serving(tmp_path, "ok", "slow", settings=("models.slow.max_queue_rows=64",)) as server:
        with under_load(server, flood, Load("ok", 8)) as ledger:
            time.sleep(SECONDS / 5)
        assert set(ledger.outcomes("slow")) == {"200", "503 queue_full"}
        assert set(ledger.outcomes("ok")) == {"200"}
        until(lambda: is_quiet(server))
