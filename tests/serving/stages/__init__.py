"""Tests of `batcher/serving/stages`."""
