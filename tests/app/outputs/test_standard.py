"""Standard output and error of a program of its own, since pytest has taken those of this one."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_PIDFD = """
import asyncio, errno, os
from batcher.app.outputs.standard import StandardOutputs

def refuse(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")

os.pidfd_open = refuse
outputs = StandardOutputs()
outputs.begin()
outputs.watch(asyncio.new_event_loop())
print("served")
outputs.end()
"""


def test_a_system_that_does_not_tell_the_end_of_a_process_has_its_outputs_all_the_same() -> None:
    """Linux before 5.3, and containers that forbid the call."""
    run = subprocess.run([sys.executable, "-c", WITHOUT_PIDFD], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "served\n", "")
