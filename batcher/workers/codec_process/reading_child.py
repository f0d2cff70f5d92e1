"""The child that reads the input of a job: as `child.py`, but with nobody to step back behind.

The model waits for what this child reads, so both have the same share of the cores.
"""

from __future__ import annotations

from collections.abc import Sequence

from batcher.workers.codec_process.child import be_child


def main(fd: int, slots: Sequence[int], parent: int, lifeline: int) -> None:
    """Be a child, from start to end. Main thread of the child."""
    be_child(fd, parent, lifeline)
