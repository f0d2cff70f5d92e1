"""A model that hangs in its thread is given up, and harms nobody else.

Nothing can end such a thread.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.chaos.clients import under_load
from tests.chaos.ledger import Load, Sent
from tests.chaos.servers import serving
from tests.end_to_end.processes import one_answer, until

STOP_LIMIT_S = 15.0
"""Seconds for a stop: half of what a stop that waited for the model would take."""


def test_a_model_that_hangs_is_given_up_and_named_while_others_answer_and_delays_no_stop(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, "ok", "hanging", settings=("defaults.watchdog_s=1",)) as server:
        with under_load(
            server, Load("hanging", 8, identified=True), Load("ok", 8, identified=True)
        ) as ledger:
            until(lambda: ledger.outcomes("hanging")["200"] > 20)
            with server.connect() as connection:
                connection.sendall(Sent(Load("hanging", marked=True)).data)
                answer = one_answer(connection)
            assert (answer.status, answer.decoded()["code"]) == (503, "worker_lost")
            with pytest.raises(HTTPError) as caught:
                server.get("/readyz")
            assert caught.value.code == 503
            assert set(json.load(caught.value)["waiting_for"]) == {"hanging/1"}
            answered = ledger.outcomes("ok")["200"]
            until(lambda: ledger.outcomes("ok")["200"] > answered + 100)
        assert set(ledger.outcomes("hanging")) <= {"200", "503 worker_lost", "503 model_not_ready"}
        assert set(ledger.outcomes("ok")) == {"200"}
        server.signal(signal.SIGTERM)
        assert server.wait(STOP_LIMIT_S) == 0
