"""Which listening sockets systemd passed to this process (sd_listen_fds).

Read when this package is imported: Twisted's endpoints take the variables out of the environment
when they are imported.
"""

from __future__ import annotations

import os

FIRST = 3
"""The first descriptor that is passed, after those of standard input, output and error."""


def _passed() -> range:
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return range(0)
    return range(FIRST, FIRST + int(os.environ.get("LISTEN_FDS", "0")))


PASSED = _passed()
"""Their descriptors, in systemd's order."""
