"""Tests of `batcher/core`."""
