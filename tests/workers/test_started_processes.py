"""Processes that models have started with `multiprocessing` end with the server."""

from __future__ import annotations

import multiprocessing
import signal
from time import sleep

from batcher.workers.started_processes import kill_started_processes


def test_what_a_model_has_started_and_left_is_killed() -> None:
    child = multiprocessing.get_context("spawn").Process(target=sleep, args=(600,), daemon=True)
    child.start()
    kill_started_processes()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    kill_started_processes()
