"""Where a batch runs: a thread, in tests the caller's own stack; and a pool for the CPU work of single requests."""
