"""What is there when the program ends is not looked at again."""

from __future__ import annotations

import gc

from batcher.app.process_settings import leave_objects


def test_the_collector_leaves_the_objects_that_are_there() -> None:
    try:
        leave_objects()
        assert gc.get_freeze_count() > 0
        assert len(gc.get_objects()) < gc.get_freeze_count()
    finally:
        gc.unfreeze()
    assert gc.get_freeze_count() == 0
