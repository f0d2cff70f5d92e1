"""Threads that end together share one look for cycles."""

from __future__ import annotations

from threading import Event, Thread
from unittest.mock import patch

from batcher.workers.collecting import collect_once


def test_threads_that_end_while_one_collects_share_one_collection_after_it() -> None:
    begun, go_on, collections = Event(), Event(), []

    def collect() -> None:
        collections.append(1)
        begun.set()
        assert go_on.wait(10)

    with patch("batcher.workers.collecting.gc.collect", collect):
        threads = [Thread(target=collect_once)]
        threads[0].start()
        assert begun.wait(10)
        threads += [Thread(target=collect_once) for _ in range(20)]
        for thread in threads[1:]:
            thread.start()
        while sum(thread.is_alive() for thread in threads) > 2:
            threads[-1].join(0.01)
        assert len(collections) == 1
        go_on.set()
        for thread in threads:
            thread.join()
    assert len(collections) == 2
