"""Models that raise, return nonsense or cannot be loaded, beside healthy models of one server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from math import log2
from typing import NamedTuple
from urllib.error import HTTPError

import pytest

from tests.chaos.clients import under_load
from tests.chaos.ledger import Ledger, Load
from tests.chaos.servers import SECONDS, is_quiet, serving
from tests.end_to_end.processes import Process, until

FAULTY = ("poisoned", "broken", "short", "nan")
INNOCENT = (Load("ok", 16), Load("ok", 4, identified=True), Load("slow", 16, identified=True))
FAULTS = (
    Load("poisoned", 63, identified=True),
    Load("poisoned", 1, marked=True, identified=True),
    Load("broken", 8),
    Load("short", 8, identified=True),
    Load("nan", 8, identified=True),
    Load("nan", 1, marked=True),
)


class Troubled(NamedTuple):
    """A server after its trouble, and what became of the requests meanwhile."""

    server: Process
    ledger: Ledger


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Troubled]:
    models = ("ok", "slow", *FAULTY, "unloadable")
    settings = ("strict_start=false", "models.nan.finite_outputs=true")
    with serving(tmp_path_factory.mktemp("models"), *models, settings=settings) as server:
        with under_load(server, *INNOCENT, *FAULTS) as ledger:
            time.sleep(SECONDS)
        yield Troubled(server, ledger)


def flushes(server: Process, model: str) -> dict[str, int]:
    found = re.findall(
        rf'^batcher_batch_flush_total{{model="{model}",reason="(\w+)".*}} (\S+)$',
        server.get("/metrics"),
        re.M,
    )
    return {reason: int(float(count)) for reason, count in found}


def test_models_beside_faulty_ones_answer_every_request_rightly(troubled: Troubled) -> None:
    for model in ("ok", "slow"):
        assert set(troubled.ledger.outcomes(model)) == {"200"}


def test_a_poisoned_row_in_each_batch_fails_alone(troubled: Troubled) -> None:
    assert set(troubled.ledger.outcomes("poisoned", marked=False)) == {"200"}
    assert set(troubled.ledger.outcomes("poisoned", marked=True)) == {"500 model_error"}


def test_a_poisoned_row_is_found_within_its_budget_of_runs(troubled: Troubled) -> None:
    runs = flushes(troubled.server, "poisoned")
    halves = runs.pop("isolate")
    assert 0 < halves <= (2 * log2(64) + 2) * sum(runs.values()), runs


def test_every_request_to_a_broken_model_gets_its_error(troubled: Troubled) -> None:
    assert set(troubled.ledger.outcomes("broken")) == {"500 model_error"}


def test_too_few_rows_are_an_error_and_never_given_to_the_wrong_request(troubled: Troubled) -> None:
    assert set(troubled.ledger.outcomes("short")) == {"500 model_contract"}


def test_nan_fails_the_rows_that_have_it_and_no_others(troubled: Troubled) -> None:
    assert set(troubled.ledger.outcomes("nan", marked=False)) == {"200"}
    assert set(troubled.ledger.outcomes("nan", marked=True)) == {"500 model_contract"}


def test_a_model_that_cannot_be_loaded_is_named_and_its_requests_get_503(
    troubled: Troubled,
) -> None:
    with pytest.raises(HTTPError) as caught:
        troubled.server.get("/readyz")
    assert caught.value.code == 503
    assert set(json.load(caught.value)["waiting_for"]) == {"unloadable/1"}
    with under_load(
        troubled.server, Load("unloadable", 4, identified=True), Load("ok", 4)
    ) as ledger:
        until(lambda: all(ledger.outcomes(name).total() > 20 for name in ("unloadable", "ok")))
    assert set(ledger.outcomes("unloadable")) == {"503 model_not_ready"}
    assert set(ledger.outcomes("ok")) == {"200"}


def test_nothing_is_left_behind(troubled: Troubled) -> None:
    until(lambda: is_quiet(troubled.server))
