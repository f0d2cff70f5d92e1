"""Tests of `batcher/serving`."""
