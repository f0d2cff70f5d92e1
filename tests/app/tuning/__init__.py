"""The tuner: curves, choices, verdicts, and the load that it sends."""
