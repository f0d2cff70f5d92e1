"""Policies: when a batch is sent, and with which requests.

Each is a pure function of the queue, the worker's state, the time and the cost of batches.
"""
