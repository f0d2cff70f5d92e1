"""How long a thread has worked: it ran, or it was ready to run."""

from __future__ import annotations

from pathlib import Path

from batcher.core.thread_seconds import thread_seconds


def test_time_that_a_thread_waited_for_a_processor_counts(tmp_path: Path) -> None:
    file = tmp_path / "schedstat"
    file.write_text("2000000000 500000000 17\n")
    assert thread_seconds(str(file)) == 2.5


def test_where_the_system_does_not_say_it_is_the_time_that_the_thread_ran(tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.write_text("0\n")
    for path in (odd, tmp_path / "none"):
        assert 0 < thread_seconds(str(path)) < 1e6
