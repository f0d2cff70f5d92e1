"""Tests of `batcher/serving/monitoring`."""
