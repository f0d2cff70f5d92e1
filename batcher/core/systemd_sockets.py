"""The listening sockets that systemd has passed to this process (sd_listen_fds).

A service with a systemd socket unit starts with sockets that are open already. Two variables of the
environment say so: `LISTEN_PID`, the process that the sockets are for, and `LISTEN_FDS`, the number
of sockets. With `LISTEN_FDS=2` the descriptors are 3 and 4.

This module is imported before Twisted: Twisted's endpoints remove both variables from the
environment when they are imported.
"""

from __future__ import annotations

import os

FIRST_DESCRIPTOR = 3
"""The first descriptor that is passed, after standard input, output and error (0, 1 and 2)."""


def _systemd_descriptors() -> range:
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return range(0)
    return range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(os.environ.get("LISTEN_FDS", "0")))


SYSTEMD_DESCRIPTORS = _systemd_descriptors()
"""The descriptors of the sockets, in systemd's order; empty without a socket unit."""
