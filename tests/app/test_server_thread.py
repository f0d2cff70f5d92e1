"""The thread of servers in a program."""

from __future__ import annotations

import pytest

from batcher.app import server_thread


def test_what_keeps_the_reactor_from_running_is_raised_where_the_server_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(server_thread.uvloop, "new_event_loop", refuse)
    thread = server_thread.ServerThread()
    for _ in range(2):
        with pytest.raises(OSError, match="too many open files"):
            thread.wait_for_reactor()
