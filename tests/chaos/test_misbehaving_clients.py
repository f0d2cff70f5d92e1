"""Clients that leave, read nothing, flood or speak no HTTP do not harm clients that behave."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.clients import under_load
from tests.chaos.ledger import Load
from tests.chaos.servers import SECONDS, descriptors, is_quiet, serving
from tests.chaos.troubles import IMPATIENT, KINDS, MIB, Trouble, make_trouble
from tests.end_to_end.processes import Process, until

BEHAVED = (
    Load("ok", 8),
    Load("ok", 4, identified=True),
    Load("ok", 2, pipelined=8),
    Load("slow", 8, identified=True),
)
MAX_GROWTH_BYTES = 64 * MIB
"""Bytes by which memory may have grown: 20 to 46 MiB were seen, known heads among them, and 140
without trims of the heap.
"""

MAX_NEW_FILES = 2
"""Files that the server opens once, when they are first needed."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the clients are all in this process
    with serving(
        tmp_path_factory.mktemp("clients"), "ok", "slow", "large", settings=IMPATIENT
    ) as process:
        yield process
        assert "Traceback" not in process.errors


@pytest.mark.parametrize("trouble", KINDS, ids=lambda trouble: trouble.__name__)
def test_clients_that_behave_do_not_notice_those_that(server: Process, trouble: Trouble) -> None:
    with under_load(server, *BEHAVED) as ledger:
        make_trouble(server, {trouble: KINDS[trouble]}, SECONDS / 10)
    for model in ("ok", "slow"):
        assert set(ledger.outcomes(model)) == {"200"}
    until(lambda: is_quiet(server))


def test_memory_and_descriptors_come_back(tmp_path: Path) -> None:
    with serving(tmp_path, "ok", "slow", "large", settings=IMPATIENT) as server:
        with under_load(server, *BEHAVED, Load("large", 4)) as ledger:
            until(lambda: ledger.outcomes("large")["200"] > 100)
        until(lambda: is_quiet(server))
        resident, opened = server.resident(), descriptors(server.pid)
        for _ in range(2):
            with under_load(server, *BEHAVED) as ledger:
                make_trouble(server, KINDS, SECONDS / 3)
            until(lambda: is_quiet(server))
            assert set(ledger.outcomes("ok") + ledger.outcomes("slow")) == {"200"}
            until(lambda: server.resident() - resident < MAX_GROWTH_BYTES)
            until(lambda: descriptors(server.pid) <= opened + MAX_NEW_FILES)
