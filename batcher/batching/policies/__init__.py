"""When a batch is sent, and with what.

One policy a file, each a pure function of the queue and the time.
"""
