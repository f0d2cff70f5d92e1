"""A stop at full load: requests that were accepted are answered, then the server is gone."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.chaos.clients import under_load
from tests.chaos.ledger import Load
from tests.chaos.servers import SECONDS, serving
from tests.end_to_end.processes import until

LOADS = (
    Load("ok", 16),
    Load("ok", 8, identified=True),
    Load("slow", 32, identified=True),
    Load("slow", 4, pipelined=8),
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_everything_that_was_accepted_at_full_load_is_answered(tmp_path: Path, number: int) -> None:
    with serving(tmp_path, "ok", "slow") as server:
        with under_load(server, *LOADS, ends=True) as ledger:
            time.sleep(SECONDS / 5)
            until(lambda: server.metric("batcher_queue_rows") > 0)
            server.signal(number)
            # A client that pipelines without a pause is served until `drain_timeout_s` is over.
            assert server.wait(60) == 0
        for model in ("ok", "slow"):
            outcomes = ledger.outcomes(model)
            assert outcomes["200"] > 0
            assert set(outcomes) <= {"200", "503 draining", "not taken"}
        assert "Traceback" not in server.errors
