"""Where a batch runs: a thread, in tests the caller's own stack.

And a pool for the CPU work of single requests.
"""
