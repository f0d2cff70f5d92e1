"""What makes a batch: a bounded queue, policies that decide, batches that collate and split.

Time is an argument here; there is no thread and no I/O.
"""
