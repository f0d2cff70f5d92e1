"""Where a batch runs: on a thread, in a child process, in tests on the caller's own stack.

Beside the workers stands the pool of threads for the CPU work of single requests.
"""
