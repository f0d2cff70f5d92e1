"""Tests of `batcher/workers/process`."""
