"""How long clients may take when the server ends, over every protocol."""

from __future__ import annotations

from typing import Final

DRAIN_GRACE_S: Final = 1.0
"""Seconds that a kept connection without a request stays open when the server is stopped, so that a
client that sends a request each second, or more often, learns of the end from an answer and never
from a broken connection. Seconds in which the loop stood still do not count, since a request that
arrived in them has not been read.
"""

LAST_ANSWERS_S: Final = 0.5
"""Seconds for the last answers to go out when a port ends; an answer that waits longer waits for a
client that does not read.
"""
