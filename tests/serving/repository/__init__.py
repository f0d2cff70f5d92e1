"""Tests of `batcher/serving/repository`."""
