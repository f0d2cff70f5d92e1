"""Tests of `batcher/serving/jobs`."""
