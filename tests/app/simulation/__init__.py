"""The simulator: known figures, what it reads, what it writes."""
