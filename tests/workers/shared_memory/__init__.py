"""Tests of `batcher/workers/shared_memory`."""
