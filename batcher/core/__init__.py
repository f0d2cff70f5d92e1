"""What every room speaks of: specifications, requests, counters, states, error texts, timers."""
