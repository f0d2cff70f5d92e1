"""Tests of `batcher/batching/policies`."""
