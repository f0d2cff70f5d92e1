"""What every room speaks of: specifications, requests, counters, error texts, timers and waiters."""
