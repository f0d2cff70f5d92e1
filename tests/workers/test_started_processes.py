"""Processes that models have started with `multiprocessing` end with the server."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from time import sleep

import pytest

from batcher.workers.started_processes import kill_started_processes


def test_what_a_model_has_started_and_left_is_killed() -> None:
    child = multiprocessing.get_context("spawn").Process(target=sleep, args=(600,), daemon=True)
    child.start()
    kill_started_processes()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    kill_started_processes()


def test_a_librarys_own_kind_of_process_is_killed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Foreign:
        """A process of joblib, whose `kill` raises AttributeError."""

        def __init__(self) -> None:
            self.program = subprocess.Popen(["sleep", "600"])
            self.pid = self.program.pid

    foreign = Foreign()
    monkeypatch.setattr(multiprocessing, "active_children", lambda: [foreign])
    kill_started_processes()
    assert foreign.program.wait(60) == -signal.SIGKILL


def test_a_number_that_may_be_another_programs_by_now_gets_no_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = multiprocessing.get_context("spawn").Process(target=int)
    child.start()
    os.waitpid(child.pid or 0, 0)  # as a model does that waits for whatever has ended
    assert child in multiprocessing.active_children(), "Python knows that the child has ended"
    sent = []
    monkeypatch.setattr(os, "kill", lambda *args: sent.append(args))
    kill_started_processes()
    assert sent == []
