"""Tests of `batcher/serving/references/`."""
