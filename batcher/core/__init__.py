"""What every room speaks of.

Specifications, requests, counters, error texts, timers and waiters.
"""
